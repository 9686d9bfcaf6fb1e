"""What the source archive and the wheel carry: what is needed, and no leftovers.

python check_archives.py FOLDER
"""

import sys
import tarfile
import zipfile
from pathlib import Path

(source,) = Path(sys.argv[1]).glob("*.tar.gz")
(wheel,) = Path(sys.argv[1]).glob("*.whl")
with tarfile.open(source) as archive:
    in_source = {name.partition("/")[2] for name in archive.getnames()}
with zipfile.ZipFile(wheel) as archive:
    in_wheel = set(archive.namelist())

kernels = "gasmcast/nn/gatv2_kernels/"
needed = {"LICENSE", "README.md", "pyproject.toml", "setup.cfg", "gasmcast/py.typed"}
needed |= {kernels + name for name in ("gatv2.c", "gatv2.h", "gatv2_kernel.h")}
page = {str(path) for path in Path("gasmcast/visualization/page").iterdir()}
needed |= page
modules = {str(path) for path in Path("gasmcast").rglob("*.py")}
packaged = {"gasmcast/py.typed", *page}
problems = [f"{source.name} lacks {name}" for name in (needed | modules) - in_source]
problems += [f"{wheel.name} lacks {name}" for name in (modules | packaged) - in_wheel]
libraries = [name for name in in_wheel if name.startswith(kernels + "_gatv2.")]
others = {
    name for name in in_wheel - modules - packaged - {*libraries} if ".dist-info/" not in name
}
if len(libraries) != 1:
    problems.append(f"{wheel.name} has {libraries}, not one library")
if wheel.name.endswith("-any.whl"):
    problems.append(f"{wheel.name} is not tagged for a platform")
problems += [f"{wheel.name} has a leftover {name}" for name in others]
problems += [
    f"{source.name} has a leftover {name}"
    for name in in_source
    if name.endswith((".so", ".o", ".pyc"))
]
sys.exit("\n".join(sorted(problems)) or None)
