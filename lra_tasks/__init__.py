"""The tasks: what attention is compared on. This is their contents page, one line a task."""

from lra_tasks.digits import Digits
from lra_tasks.image import Image
from lra_tasks.interface import Task
from lra_tasks.listops import ListOps
from lra_tasks.probes.recall import Recall
from lra_tasks.text import Text

TASKS: dict[str, type[Task]] = {
    "listops": ListOps,
    "text": Text,
    "image": Image,
    "digits": Digits,
    "recall": Recall,
}
