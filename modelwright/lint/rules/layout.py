"""MW5xx: folders, versions, links and stray files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from modelwright.lint.completion import DEFAULT_FILES
from modelwright.lint.rule import Example, Folder, Found, Locked, Severity, Symlink, rule
from modelwright.lint.tree import ModelFolder, TreeEntry, is_hidden
from modelwright.lint.view import ConfigView, RepositoryView
from modelwright.triton.file_types import pointer
from modelwright.triton.layout import in_range

# Left by editors, copy tools, version control and file managers.
_STRAY = re.compile(
    r".*~|#.*#|\.#.*|\..*\.sw[a-p]|.*\.(tmp|temp|bak|orig|rej|part|swp)|\.DS_Store|Thumbs\.db|\.nfs.*", re.I
)
_POLICY = "version_policy"
_POINTER = "version https://git-lfs.github.com/spec/v1\n"


@rule(
    "MW501",
    "no version to serve",
    Severity.ERROR,
    why="A model needs a folder for each version, named by its number, and a version policy that selects at least one. "
    "git and copy tools drop empty folders, such as an ensemble's.",
    fix="Create the version's folder, 1 for the first. version_policy { latest { } } selects no version: give it "
    "num_versions.",
    example=Example("version_policy { latest { } }", "version_policy { latest { num_versions: 1 } }"),
)
def no_version(view: ConfigView) -> Iterator[Found]:
    if view.served or any(not in_range(number) for number in view.model.numbers.values()):
        return
    if not view.model.versions:
        yield view.at("", "the model has no version folder")
    else:
        versions = ", ".join(str(number) for number in view.model.versions)
        yield view.found(f"version_policy selects none of the model's versions ({versions})", _POLICY)


@rule(
    "MW502",
    "version number that crashes the server",
    Severity.ERROR,
    why="A version number that does not fit into 64 bits raises an exception that the server does not catch: the whole "
    "process aborts, with every model in it, as soon as it looks at this model.",
    fix="Remove or rename the folder. A date and time fits: 20261121093000.",
    example=Example("", "", fault_files={"99999999999999999999/model.py": "\n"}),
    on_text=True,
)
def huge_version(model: ModelFolder) -> Iterator[Found]:
    for name, number in model.numbers.items():
        if not in_range(number):
            yield Found("this version number crashes the server", f"{model.name}/{name}")


@rule(
    "MW503",
    "folder that the server mistakes for a version",
    Severity.ERROR,
    why="The server reads the number at the start of a folder's name and ignores the rest: 5.tmp and 5-old are version "
    "5. It then looks for the folder 5, does not find it, and the model fails to load, again at every poll.",
    fix="Prepare versions outside the repository and move them in by a rename; keep backups elsewhere.",
    example=Example("", "", fault_files={"5.tmp/model.py": "\n"}),
)
def mistaken_version(view: ConfigView) -> Iterator[Found]:
    for name, number in (
        view.model.numbers.items() if not view.is_ensemble else ()
    ):  # the server looks for no files of an ensemble
        if number in view.served and number < 0:
            yield view.at(name, f"the server takes it for version {number} and looks for the folder '{number + 2**64}'")
        elif number in view.served and name != str(number) and str(number) not in view.model.numbers:
            yield view.at(name, f"the server takes it for version {number}, and there is no folder '{number}'")


@rule(
    "MW504",
    "folder that looks like a version",
    Severity.WARNING,
    why="The server ignores a version with a leading zero. It takes other names that start with a number for that "
    "number, so two folders can be the same version to it.",
    fix="Name version folders by plain numbers: 1, 2, 3.",
    example=Example("", "", fault_files={"007/model.py": "\n"}),
)
def ignored_version(view: ConfigView) -> Iterator[Found]:
    for name in view.model.folders:
        number = view.model.numbers.get(name)
        if re.fullmatch(r"0\d+.*", name):
            yield view.at(name, "the server ignores a version with leading zeros")
        elif (
            number is not None
            and name != str(number)
            and (number not in view.served or str(number) in view.model.numbers)
        ):
            yield view.at(name, f"the server takes it for version {number}")


@rule(
    "MW505",
    "version_policy names a missing version",
    Severity.WARNING,
    why="The server loads those versions of version_policy { specific } that exist. For the others it only writes a "
    "line to its log, and reports the model as ready.",
    fix="Add the version, or remove it from the list.",
    example=Example(
        "version_policy { specific { versions: [ 1, 2 ] } }", "version_policy { specific { versions: [ 1 ] } }"
    ),
)
def missing_version(view: ConfigView) -> Iterator[Found]:
    for index, number in enumerate(view.message.version_policy.specific.versions):
        if number not in view.model.versions and view.served:
            yield view.found(f"version {number} does not exist", _POLICY, "specific", "versions", index)


@rule(
    "MW506",
    "stray file",
    Severity.WARNING,
    why="A polling server reloads every version of a model whenever anything in its folder changes, even an editor's "
    "swap file. From an object store, the server also downloads every stray copy.",
    fix="Remove the file.",
    example=Example("", "", fault_files={".config.pbtxt.swp": "x"}),
    on_text=True,
)
def stray_file(model: ModelFolder) -> Iterator[Found]:
    for name in sorted(model.entries):
        if _STRAY.fullmatch(name) and model.entries[name].kind != "folder":
            yield Found("left by an editor or a copy tool", f"{model.name}/{name}")


@rule(
    "MW507",
    "broken link at the root",
    Severity.ERROR,
    why="With a broken symbolic link at the repository's root, the server cannot read the repository: it unloads every "
    "model, and the index endpoint fails.",
    fix="Remove the link, or restore its target.",
    example=Example("", "", fault_files={"/gone": Symlink("nowhere")}),
    unexercised="it concerns servers that poll; another test starts one",
)
def broken_link_at_root(repository: RepositoryView) -> Iterator[Found]:
    for name, entry in sorted(repository.tree.entries.items()):
        if entry.kind == "dangling":
            yield Found(f"the link points to '{entry.link}', which does not exist or leads back to the link", name)


@rule(
    "MW508",
    "broken link in a model",
    Severity.ERROR,
    why="The server looks at everything in a model's folder before it loads the model, and fails at a link whose "
    "target is missing or leads back to the link.",
    fix="Remove the link, or restore its target.",
    example=Example("", "", fault_files={"old": Symlink("nowhere")}),
    on_text=True,
)
def broken_link_in_model(model: ModelFolder) -> Iterator[Found]:
    for name, entry in sorted(model.entries.items()):
        if entry.kind == "dangling":
            yield Found(
                f"the link points to '{entry.link}', which does not exist or leads back to the link",
                f"{model.name}/{name}",
            )


@rule(
    "MW509",
    "hidden folder at the root",
    Severity.ERROR,
    why="The server takes every folder at the root for a model, hidden ones too: .git or .ipynb_checkpoints fails to "
    "load. At start-up that stops a server without --exit-on-error=false.",
    fix="Move it out of the repository.",
    example=Example("", "", fault_files={"/.git": Folder()}),
    unexercised="it concerns servers that load every model; the differential tests load models by name",
)
def hidden_at_root(repository: RepositoryView) -> Iterator[Found]:
    for name in sorted(repository.tree.models):
        if is_hidden(name):
            yield Found("the server takes it for a model", name)


@rule(
    "MW510",
    "link that leaves the model",
    Severity.WARNING,
    why="The link works on this machine, and breaks where the model is copied, uploaded or mounted without the link's "
    "target. A model that shares files with another one changes when they change.",
    fix="Replace the link by the files.",
    example=Example("", "", fault_files={"notes": Symlink("/")}),
    on_text=True,
)
def leaving_link(repository: RepositoryView) -> Iterator[Found]:
    root = repository.tree.root.resolve()
    for name, entry in sorted(repository.tree.entries.items()):
        if entry.link is not None and entry.kind != "dangling" and not entry.path.resolve().is_relative_to(root):
            yield Found(f"the link points to '{entry.link}', outside the repository", name)
    for model in repository.tree.models.values():
        for where, entry in _links(model):
            if entry.kind != "dangling" and not entry.path.resolve().is_relative_to(model.path.resolve()):
                yield Found(f"the link points to '{entry.link}', outside the model", f"{model.name}/{where}")


def _links(model: ModelFolder) -> Iterator[tuple[str, TreeEntry]]:
    """(path relative to the model, link) in it and in its folders."""
    for name, entry in sorted(model.entries.items()):
        if entry.link is not None:
            yield name, entry
        if entry.kind == "folder":
            inside = model.inside(name)
            for inner in sorted(inner for inner, item in inside.items() if item.link is not None):
                yield f"{name}/{inner}", inside[inner]


@rule(
    "MW511",
    "folder that cannot be read",
    Severity.ERROR,
    why="The server fails to load a model if it may not read one of its folders. This linter could not list the folder "
    "as the user who runs it.",
    fix="Give the user who runs the server permission to read the folder.",
    example=Example("", "", fault_files={"2": Locked()}),
    unexercised="the tests may run as a user who can read everything",
    on_text=True,
)
def unreadable_folder(model: ModelFolder) -> Iterator[Found]:
    for name, reason in model.unreadable().items():
        yield Found(f"the folder cannot be listed: {reason}", f"{model.name}/{name}".rstrip("/"))


@rule(
    "MW512",
    "pointer in place of a file",
    Severity.WARNING,
    why="A clone without git-lfs has a small text in place of each large file. Where such a file is the model itself, "
    "the server refuses it, and another rule says so. Labels, warm-up data and weights that are small may be read as "
    "they are, and make wrong answers.",
    fix="Run git lfs pull in the clone, and copy the files again.",
    example=Example(
        "", "", fault_files={"labels.txt": _POINTER, "1/table.bin": _POINTER}, fixed_files={"labels.txt": "cat\n"}
    ),
)
def pointer_in_place(view: ConfigView) -> Iterator[Found]:
    model, config = view.model, view.message
    files = {name: entry for name, entry in model.entries.items() if entry.kind == "file"}
    for folder in model.folders:
        inside = model.inside(folder).items()
        files |= {f"{folder}/{name}": entry for name, entry in inside if entry.kind == "file"}
    for number in view.served if config.backend in DEFAULT_FILES else ():
        files.pop(f"{number}/{config.default_model_filename}", None)
    for file, entry in sorted(files.items()):
        with contextlib.suppress(OSError):
            is_ = pointer(entry.path)
            if is_:
                yield view.at(file, f"it is {is_.what}", fix=f"{is_.fix}.")
