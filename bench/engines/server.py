"""What the fork server imports first: it takes the temporary folder of its command with it.

A command that is killed removes nothing; its server ends a moment later by itself, and does.
"""

import atexit
import os
import shutil

# Names that folder in the environment in which a server starts.
FOLDER = "ATTNBENCH_SERVER_FOLDER"

if FOLDER in os.environ:
    # Children are ended without Python's exit, so that none of them does the same.
    atexit.register(shutil.rmtree, os.environ.pop(FOLDER), ignore_errors=True)
