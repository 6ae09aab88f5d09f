"""`flowmac recipe`"""

import re
import shutil
from pathlib import Path

from speechbrain_flowmac.commands.jobs import add_overwrite
from speechbrain_flowmac.console import UsageError, add_command, say

PACKAGE = Path(__file__).parents[1]
REQUIREMENTS = "extra_requirements.txt"


def _home():
    """The folder of recipes/ and hparams/: the package, or a checkout."""
    installed = (PACKAGE / "recipes").is_dir()
    return PACKAGE if installed else PACKAGE.parent


def recipes():
    """Folders of the recipes by their names, such as "codec"."""
    scripts = (_home() / "recipes").glob("*/*/train.py")
    found = {script.parent.name: script.parent for script in scripts}
    return dict(sorted(found.items()))


def files_of(folder):
    """What a recipe needs to run where it is copied.

    Arguments
    ---------
    folder : Path
        Of the recipe.

    Returns
    -------
    dict
        Sources by the path that they are copied to: the recipe's files, the
        scripts that it shares with others of its data set, and the YAML files
        that its README names.
    """
    files = {path.name: path for path in folder.parent.glob("*.py")}
    files.update({p.name: p for p in folder.iterdir() if p.is_file()})
    for name in re.findall(r"hparams/\w+\.yaml", _readme(folder)):
        files[name] = _home() / name
    return files


def _readme(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def run(args):
    """Copies a recipe into the current folder, or lists them."""
    known = recipes()
    if args.name is None:
        for name, folder in known.items():
            title = _readme(folder).splitlines()[0]
            say(f"{name}: {title.lstrip('# ')}")
        return 0
    if args.name not in known:
        raise UsageError(
            f"no recipe {args.name!r}, there are {', '.join(known)}"
        )
    files = files_of(known[args.name])
    present = [target for target in sorted(files) if Path(target).exists()]
    if present and not args.overwrite:
        raise UsageError(
            f"{', '.join(present)} would be replaced (--overwrite does it)"
        )
    for target, source in files.items():
        Path(target).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
    say(f"{len(files)} files. Run:")
    if REQUIREMENTS in files:
        say(f"pip install -r {REQUIREMENTS}")
    readme = _readme(known[args.name])
    say("python " + re.search(r"train\.py hparams/\w+\.yaml", readme)[0])
    return 0


def add(commands):
    """Adds the command to the command line."""
    text = "Copy a recipe, ready to run, into the current folder."
    command = add_command(commands, "recipe", run, text)
    command.add_argument(
        "name", nargs="?", metavar="NAME", help="none to list the recipes"
    )
    add_overwrite(command)
