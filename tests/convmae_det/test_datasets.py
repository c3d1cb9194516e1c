"""Where the project's own data set is looked for."""

import subprocess
import sys

from shapes import environment

FIND = """
import convmae_det.datasets
from detectron2.data import MetadataCatalog
print(MetadataCatalog.get("shapes_val").json_file)
"""


def test_the_folder_of_data_sets_may_be_in_the_home_folder():
    """As detectron2 takes it, with a tilde that no shell has replaced."""
    variables = environment("~/sets") | {"HOME": "/home/someone"}
    found = subprocess.run([sys.executable, "-c", FIND], env=variables, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "/home/someone/sets/shapes/annotations/instances_val.json"
