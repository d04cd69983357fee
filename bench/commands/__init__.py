"""What the command line does, apart from reading its arguments. Only here may bench use reports."""
