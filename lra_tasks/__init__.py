"""The tasks: what attention is compared on. This is their contents page, one line a task."""

from lra_tasks.digits import Digits
from lra_tasks.image import Image
from lra_tasks.imdb_halves import ImdbHalves
from lra_tasks.interface import Task
from lra_tasks.listops import ListOps
from lra_tasks.path_x import PathX
from lra_tasks.pathfinder import Pathfinder
from lra_tasks.probes.adding import Adding
from lra_tasks.probes.brackets import Brackets
from lra_tasks.probes.copying import Copying
from lra_tasks.probes.induction import Induction
from lra_tasks.probes.needle import Needle
from lra_tasks.probes.parity import Parity
from lra_tasks.probes.recall import Recall
from lra_tasks.probes.reverse import Reverse
from lra_tasks.probes.selective_copying import SelectiveCopying
from lra_tasks.probes.sort import Sort
from lra_tasks.retrieval import Retrieval
from lra_tasks.text import Text

TASKS: dict[str, type[Task]] = {
    "listops": ListOps,
    "text": Text,
    "retrieval": Retrieval,
    "imdb_halves": ImdbHalves,
    "image": Image,
    "pathfinder": Pathfinder,
    "path_x": PathX,
    "digits": Digits,
    "needle": Needle,
    "recall": Recall,
    "induction": Induction,
    "copying": Copying,
    "selective_copying": SelectiveCopying,
    "adding": Adding,
    "parity": Parity,
    "brackets": Brackets,
    "reverse": Reverse,
    "sort": Sort,
}
