"""MW5xx: folders, versions, links, and what else lies around."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelwright.lint.rule import Example, Folder, Found, Link, Locked, Severity, rule
from modelwright.lint.tree import Entry, ModelFolder, is_hidden
from modelwright.lint.view import ConfigView, RepositoryView
from modelwright.triton.layout import in_range

# Left by editors, copy tools, version control and file managers.
_JUNK = re.compile(
    r".*~|#.*#|\.#.*|\..*\.sw[a-p]|.*\.(tmp|temp|bak|orig|rej|part|swp)|\.DS_Store|Thumbs\.db|\.nfs.*", re.I
)
_POLICY = "version_policy"


@rule(
    "MW501",
    "no version to serve",
    Severity.ERROR,
    why="A model needs a folder for each version, named by its number, and a version policy that picks at least "
    "one. Copy tools and git drop folders that are empty, such as an ensemble's.",
    fix="Make the version's folder, 1 for the first; mind that version_policy { latest { } } means zero versions.",
    example=Example("version_policy { latest { } }", "version_policy { latest { num_versions: 1 } }"),
)
def no_version(view: ConfigView) -> Iterator[Found]:
    if view.served or any(not in_range(number) for number in view.model.numbers.values()):
        return
    if not view.model.versions:
        yield view.at("", "there is no version folder in it")
    else:
        versions = ", ".join(str(number) for number in view.model.versions)
        yield view.found(f"the policy picks none of the versions there are ({versions})", _POLICY)


@rule(
    "MW502",
    "version number that ends the server",
    Severity.ERROR,
    why="A folder whose number does not fit into 64 bits raises an exception nobody catches: the whole server "
    "process aborts, with every model in it, as soon as it looks at this model.",
    fix="Remove or rename the folder. A date and time fits: 20261121093000.",
    example=Example("", "", fault_files={"99999999999999999999/model.py": "\n"}),
    on_text=True,
)
def huge_version(model: ModelFolder) -> Iterator[Found]:
    for name, number in model.numbers.items():
        if not in_range(number):
            yield Found("this number aborts the whole server", f"{model.name}/{name}")


@rule(
    "MW503",
    "folder that counts as a version and is none",
    Severity.ERROR,
    why="The server reads the number at the front of a folder's name and ignores the rest: 5.tmp and 5-old are "
    "version 5. It then looks into the folder 5, which is not there, and the model fails, at every poll again.",
    fix="Put versions together outside the repository and rename them in; keep backups elsewhere.",
    example=Example("", "", fault_files={"5.tmp/model.py": "\n"}),
)
def false_version(view: ConfigView) -> Iterator[Found]:
    for name, number in view.model.numbers.items() if not view.is_ensemble else ():  # which has no files to look for
        if number in view.served and number < 0:
            yield view.at(name, f"it counts as version {number}, which is looked for as {number + 2**64}")
        elif number in view.served and name != str(number) and str(number) not in view.model.numbers:
            yield view.at(name, f"it counts as version {number}, and there is no folder '{number}'")


@rule(
    "MW504",
    "folder that looks like a version and is ignored",
    Severity.WARNING,
    why="A leading zero makes the server ignore a version. Other names that start with a number stand for that "
    "number, so that two folders may be one version to the server.",
    fix="Name versions by their plain numbers.",
    example=Example("", "", fault_files={"007/model.py": "\n"}),
)
def ignored_version(view: ConfigView) -> Iterator[Found]:
    for name in view.model.folders:
        number = view.model.numbers.get(name)
        if re.fullmatch(r"0\d+.*", name):
            yield view.at(name, "a version with leading zeros is ignored")
        elif (
            number is not None
            and name != str(number)
            and (number not in view.served or str(number) in view.model.numbers)
        ):
            yield view.at(name, f"the server takes it for version {number}")


@rule(
    "MW505",
    "version that the policy names and that is not there",
    Severity.WARNING,
    why="Of the versions that version_policy { specific } names, the server loads those that are there. It writes "
    "a line into its log about the others, and says that the model is ready.",
    fix="Publish the version, or take it off the list.",
    example=Example(
        "version_policy { specific { versions: [ 1, 2 ] } }", "version_policy { specific { versions: [ 1 ] } }"
    ),
)
def version_absent(view: ConfigView) -> Iterator[Found]:
    for index, number in enumerate(view.message.version_policy.specific.versions):
        if number not in view.model.versions and view.served:
            yield view.found(f"there is no version {number}", _POLICY, "specific", "versions", index)


@rule(
    "MW506",
    "file that does not belong there",
    Severity.WARNING,
    why="A server that polls reloads every version of a model whenever anything in its folder changes, be it an "
    "editor's swap file. Copies that are kept there double what is loaded from object stores.",
    fix="Remove it.",
    example=Example("", "", fault_files={".config.pbtxt.swp": "x"}),
    on_text=True,
)
def junk(model: ModelFolder) -> Iterator[Found]:
    for name in sorted(model.entries):
        if _JUNK.fullmatch(name) and model.entries[name].kind != "folder":
            yield Found("left by an editor or a copy tool", f"{model.name}/{name}")


@rule(
    "MW507",
    "dangling link at the root",
    Severity.ERROR,
    why="A link that leads nowhere at the repository's root makes the server give up reading the repository: every "
    "model in it is unloaded, and the index endpoint fails, until the link is gone.",
    fix="Remove the link, or restore what it points to.",
    example=Example("", "", fault_files={"/gone": Link("nowhere")}),
    unexercised="it is about servers that poll; one test of its own starts such a server",
)
def dangling_at_root(repository: RepositoryView) -> Iterator[Found]:
    for name, entry in sorted(repository.tree.entries.items()):
        if entry.kind == "dangling":
            yield Found(f"the link leads to '{entry.link}', which is not there, or to itself", name)


@rule(
    "MW508",
    "dangling link in a model",
    Severity.ERROR,
    why="The server looks at everything in a model's folder before it loads the model. A link that leads nowhere, "
    "or in a circle, fails that.",
    fix="Remove the link, or restore what it points to.",
    example=Example("", "", fault_files={"old": Link("nowhere")}),
    on_text=True,
)
def dangling_in_model(model: ModelFolder) -> Iterator[Found]:
    for name, entry in sorted(model.entries.items()):
        if entry.kind == "dangling":
            yield Found(f"the link leads to '{entry.link}', which is not there, or to itself", f"{model.name}/{name}")


@rule(
    "MW509",
    "hidden folder at the root",
    Severity.ERROR,
    why="To the server every folder at the root is a model, hidden ones too: .git or .ipynb_checkpoints fails to "
    "load, and at the start that ends a server that runs without --exit-on-error=false.",
    fix="Move it out of the repository.",
    example=Example("", "", fault_files={"/.git": Folder()}),
    unexercised="it is about servers that load every model; the differential ones load models by name",
)
def hidden_at_root(repository: RepositoryView) -> Iterator[Found]:
    for name in sorted(repository.tree.models):
        if is_hidden(name):
            yield Found("the server takes it for a model", name)


@rule(
    "MW510",
    "link that leaves the model",
    Severity.WARNING,
    why="Such a link works on this machine and breaks where the model is copied, uploaded or mounted without what "
    "it leads to. A model that shares files with another changes when the other one does.",
    fix="Put the files themselves there.",
    example=Example("", "", fault_files={"notes": Link("/")}),
    on_text=True,
)
def leaving_link(repository: RepositoryView) -> Iterator[Found]:
    root = repository.tree.root.resolve()
    for name, entry in sorted(repository.tree.entries.items()):
        if entry.link is not None and entry.kind != "dangling" and not entry.path.resolve().is_relative_to(root):
            yield Found(f"the link leads to '{entry.link}', outside the repository", name)
    for model in repository.tree.models.values():
        own = model.path.resolve()
        for where, entry in _links(model):
            if entry.kind != "dangling" and not entry.path.resolve().is_relative_to(own):
                yield Found(f"the link leads to '{entry.link}', outside the model", f"{model.name}/{where}")


def _links(model: ModelFolder) -> Iterator[tuple[str, Entry]]:
    """(path relative to the model, link) in it and in its folders."""
    for name, entry in sorted(model.entries.items()):
        if entry.link is not None:
            yield name, entry
        for inner, item in sorted(model.inside(name).items()) if entry.kind == "folder" else ():
            if item.link is not None:
                yield f"{name}/{inner}", item


@rule(
    "MW511",
    "folder that cannot be read",
    Severity.ERROR,
    why="The server reads it as whoever runs it, and fails where that user may not.",
    fix="Give the user that runs the server permission to read it.",
    example=Example("", "", fault_files={"2": Locked()}),
    unexercised="the tests' user may read everything",
    on_text=True,
)
def unreadable_folder(model: ModelFolder) -> Iterator[Found]:
    for name, reason in model.unreadable().items():
        yield Found(f"it cannot be listed: {reason}", f"{model.name}/{name}".rstrip("/"))
