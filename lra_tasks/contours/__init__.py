"""Two long dashed contours among short ones, and two discs: the pictures of Pathfinder."""
