"""The Python API: what the commands do, as methods that return typed results.

    from modelwright import Project

    project = Project.find()
    for outcome in project.build():
        print(outcome.model, outcome.version, outcome.status)

Nothing here prints or exits. Every error that a user can cause is a ModelwrightError (errors.py draws the tree). What a
method needs is imported when it is called, so that importing this module costs next to nothing. The command line uses
these same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.project.project import ProjectConfig, find

if TYPE_CHECKING:
    from modelwright.bench.bench import Asked
    from modelwright.bench.choice import Objective
    from modelwright.bench.document import BenchResult
    from modelwright.build.listener import Listener
    from modelwright.build.locks import LockedModel
    from modelwright.build.outcome import Outcome
    from modelwright.build.plan import BuildPlan
    from modelwright.build.source_locks import LockedSources
    from modelwright.fleet.follow import Servers
    from modelwright.fleet.rollout import Canary, RolledOut, RolloutPlan
    from modelwright.fleet.watcher import Watcher
    from modelwright.lint.engine import LintReport
    from modelwright.loadtest.measure.progress import Progress
    from modelwright.operations.adopt import Adoption
    from modelwright.operations.change import Changed
    from modelwright.operations.diff import VersionDiff
    from modelwright.operations.fsck import Checkup
    from modelwright.operations.gc import Collected
    from modelwright.operations.history import History
    from modelwright.operations.infer import Answer
    from modelwright.operations.pick import Picked
    from modelwright.operations.preview import Preview
    from modelwright.operations.remote import RemoteDifference
    from modelwright.operations.replay import Replayed
    from modelwright.operations.rollout import RolloutSettings
    from modelwright.operations.scaffold import Scaffold
    from modelwright.operations.sign import Signed
    from modelwright.operations.status import ModelStatus
    from modelwright.operations.track import Bundled
    from modelwright.operations.versions import ModelVersions
    from modelwright.remotes.pull import Pulled
    from modelwright.remotes.push import Pushed
    from modelwright.server.local import Ports
    from modelwright.server.session import Served
    from modelwright.tracking.recorder import Sent
    from modelwright.triton.access import Access

Names = str | Iterable[str]
Say = Callable[[str], Any]


def _quiet(text: str) -> None:
    """Where progress goes unless somebody wants it."""


def _listed(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


class Project:
    """A folder with a modelwright.toml, its builders and its model repository.

    `names` are model names: one, several, or none for all. `say` is called with a line of progress, such as the
    installation of the local server; by default nobody hears it.
    """

    def __init__(self, config: ProjectConfig) -> None:
        self.config = config

    @classmethod
    def find(cls, folder: Path | str = ".") -> Project:
        """The project of this folder, or of the nearest parent with a modelwright.toml.

        Raises ProjectNotFoundError when there is none, ProjectError for a modelwright.toml that is not valid.
        """
        return cls(find(Path(folder)))

    def __repr__(self) -> str:
        return f"Project({str(self.root)!r})"

    @property
    def root(self) -> Path:
        """The folder of modelwright.toml."""
        return self.config.root

    @property
    def repository(self) -> Path:
        """The model repository that a build publishes to."""
        return self.config.repository

    def plan(self, names: Names = (), *, everything: bool = False) -> BuildPlan:
        """What a build would run, and why: one entry a step, in order. Nothing runs.

        With `everything`, also models that are built on request: of the named builders, or of all.

        `errors` of the result holds the models that a build would fail at once, such as for a faulty model.yaml.
        Raises SpecError for an unknown name.
        """
        from modelwright.build.workspace import open_workspace, plan_workspace

        workspace = open_workspace(self.config, _listed(names), everything=everything)
        planned = plan_workspace(workspace)
        workspace.fingerprints.save()
        return planned

    def build(
        self,
        names: Names = (),
        *,
        listener: Listener | None = None,
        jobs: int | None = None,
        wait: bool = False,
        write_locks: bool = True,
        everything: bool = False,
    ) -> list[Outcome]:
        """Build what is not up to date, verify it, publish it. One outcome a model, failed ones included.

        `jobs` bounds the threads of all steps together, by default to the cores of this process. While another build
        runs, LockedError is raised, or with `wait` waited. A requirements.lock that is missing or does not fit is
        written; without `write_locks` it is an error. With `everything`, also models that are built on request: of the
        named builders, or of all. Raises SpecError for an unknown name, before anything runs.
        What is wrong with one model, from its model.yaml to its publish, is the `error` of its outcome.
        """
        from modelwright.build.build import build
        from modelwright.build.listener import Listener

        return build(
            self.config,
            _listed(names),
            listener or Listener(),
            jobs=jobs,
            wait=wait,
            write_locks=write_locks,
            everything=everything,
        )

    def nothing_to_do(self, names: Names = (), *, replayed: bool = False, everything: bool = False) -> int | None:
        """How many models a build would find unchanged, by timestamps alone; None when it must look closer.

        A number says as much as a build that changes nothing, and takes milliseconds. With `replayed`, every version
        has also passed `verify_if_changed` as it is.
        """
        from modelwright.build import stamp

        found = stamp.read(self.config, stamp.asked(_listed(names), everything))
        return None if found is None or (replayed and not found.replayed) else found.models

    def lint(self, *, target: str | None = None, auto_complete: bool = True) -> LintReport:
        """Check the repository by what tritonserver enforces when it loads it, without a server.

        `target` is a Triton release such as "26.07", by default the project's. `auto_complete=False` is for servers
        that run with --disable-auto-complete-config. Raises ProjectError for an unknown release, ModelwrightError when
        there is no repository; findings are in the report.
        """
        from modelwright.operations.lint import lint_project

        return lint_project(self.config, target=target, auto_complete=auto_complete)

    def verify(
        self,
        names: Names = (),
        *,
        urls: Iterable[str] = (),
        access: Access | None = None,
        exact: bool = False,
        say: Say = _quiet,
    ) -> list[Replayed]:
        """Send golden samples to servers and compare the answers. One result a version and URL.

        `urls` are http://host:port or grpc://host:port; without them a local server is started that serves every
        version, and is asked over both protocols. `max_abs_error` is in units of the output. Raises RepositoryError for
        an unknown name, VerifyError when nothing is published, ServerError for a server that cannot be reached. A
        version whose answers differ is a result with the verdict "failed"; with `exact`, so is one that a server
        serves and the repository lacks. `access` has headers and certificates for `urls`.
        """
        from modelwright.operations.replay import verify

        return verify(self.config, _listed(names), _listed(urls), access=access, exact=exact, say=say)

    def verify_if_changed(self, names: Names = (), *, say: Say = _quiet) -> list[Replayed] | None:
        """`verify` on a local server what is not known to have passed there as it is; None when there is nothing such.

        With names: versions of these models, as far as they are published, and of the ensembles that run them.
        """
        from modelwright.operations.replay import verify_if_changed

        return verify_if_changed(self.config, _listed(names), say=say)

    def status(self) -> list[ModelStatus]:
        """What is published and what a build would change, a model an entry. A faulty one has that as its state."""
        from modelwright.operations.status import status

        return status(self.config)

    def versions(self, name: str) -> ModelVersions:
        """The versions of a model, live and retired, newest first: which are served and why, and how each did.

        What is wrong with one version is its `problem`. Raises RepositoryError for a model that is not there.
        """
        from modelwright.operations.versions import versions

        return versions(self.config, name)

    def diff(self, name: str, before: int | None = None, after: int | None = None) -> VersionDiff:
        """What differs between two versions of a model, live or retired: by default the newest and the one below it.

        Raises RepositoryError for a model or version that is not there, and for a manifest that cannot be read.
        """
        from modelwright.operations.diff import diff

        return diff(self.config, name, before, after)

    def history(self, name: str = "") -> History:
        """The events of the journal that changed a model, or all of them; `breaks` says where it is not as written.

        Raises RepositoryError for a model that was never there.
        """
        from modelwright.operations.history import history

        return history(self.config, name)

    def retire(
        self,
        name: str,
        version: int,
        *,
        why: str = "",
        dry_run: bool = False,
        wait: bool = False,
        allow_signature_change: bool = False,
        servers: Servers | None = None,
        say: Say = _quiet,
    ) -> Changed:
        """Take a version out of the repository; it is kept in the history, and `restore` brings it back.

        `why` goes into the journal. With `dry_run` the result says what would be done, and nothing is. While a build or
        another operator is at work, LockedError is raised or, with `wait`, waited; `say` then hears who that is.

        `servers` follow the change one after the other, each by golden replay. Raises ServerError before anything has
        changed where one of them cannot, and FleetError where one did not: then all was put back but for what it names.

        Raises RepositoryError for a version that is not there, is promoted, is needed by a pipeline or is the last one;
        and where clients would see other inputs or outputs, unless `allow_signature_change` is set.
        """
        from modelwright.operations.change import How, retire

        return retire(self.config, name, version, How(why, dry_run, wait, allow_signature_change, say, servers))

    def restore(
        self,
        name: str,
        version: int,
        *,
        why: str = "",
        dry_run: bool = False,
        wait: bool = False,
        allow_signature_change: bool = False,
        servers: Servers | None = None,
        say: Say = _quiet,
    ) -> Changed:
        """Bring a retired version back under its number. Raises RepositoryError for a damaged one.

        The other arguments and errors are those of `retire`.
        """
        from modelwright.operations.change import How, restore

        return restore(self.config, name, version, How(why, dry_run, wait, allow_signature_change, say, servers))

    def rollback(
        self,
        name: str,
        to: int | None = None,
        *,
        why: str = "",
        dry_run: bool = False,
        wait: bool = False,
        allow_signature_change: bool = False,
        servers: Servers | None = None,
        say: Say = _quiet,
    ) -> Changed:
        """Serve version `to` again, by default the one below the served one; newer ones leave.

        A pipeline runs the versions again that it was verified with. Raises RepositoryError where there is nothing to
        go back to, and where another pipeline needs a version that would leave. The other arguments and errors are
        those of `retire`.
        """
        from modelwright.operations.change import How, rollback

        return rollback(self.config, name, to, How(why, dry_run, wait, allow_signature_change, say, servers))

    def promote(
        self,
        name: str,
        version: int | None,
        *,
        why: str = "",
        dry_run: bool = False,
        wait: bool = False,
        allow_signature_change: bool = False,
        servers: Servers | None = None,
        say: Say = _quiet,
    ) -> Changed:
        """Serve this version, whatever is newer; None ends that. Builds publish new versions, and they are not served.

        The other arguments and errors are those of `retire`.
        """
        from modelwright.operations.change import How, promote

        return promote(self.config, name, version, How(why, dry_run, wait, allow_signature_change, say, servers))

    def gc(
        self,
        keep: int,
        names: Names = (),
        *,
        why: str = "",
        dry_run: bool = False,
        wait: bool = False,
        say: Say = _quiet,
    ) -> Collected:
        """Retire old versions, and delete those that were retired before. Of each model `keep` of both stay.

        So does what is served, promoted, needed by a pipeline or on a remote: `stays` of the result has the reasons.
        Raises RepositoryError for an unknown name. The other arguments are those of `retire`.
        """
        from modelwright.operations.change import How
        from modelwright.operations.gc import gc

        return gc(self.config, keep, _listed(names), How(why, dry_run, wait, say=say))

    def fsck(
        self,
        names: Names = (),
        *,
        repair: bool = False,
        remotes: Names = (),
        why: str = "",
        wait: bool = False,
        say: Say = _quiet,
    ) -> Checkup:
        """Read every file of these models, or of all, live and retired, and what is around them; with `repair` restore
        what can be. `damages` of the result is what is wrong then.

        `remotes` are URLs that versions can be fetched from, beside those that this project pushed to. Raises
        RepositoryError for an unknown name, SigningError where signatures cannot be checked at all: a key or a package
        is missing. `why` and `wait` are those of `retire`.
        """
        from modelwright.operations.fsck import fsck

        return fsck(self.config, _listed(names), repair=repair, remotes=_listed(remotes), why=why, wait=wait, say=say)

    def sign(
        self,
        names: Names = (),
        version: int | None = None,
        *,
        again: bool = False,
        why: str = "",
        wait: bool = False,
        say: Say = _quiet,
    ) -> list[Signed]:
        """Sign versions that have no signature; with `again` those that have one, too. One result a version.

        Raises SigningError where the key does not sign, and RepositoryError for a version that is unknown or damaged.
        `why` and `wait` are those of `retire`.
        """
        from modelwright.operations.sign import sign

        return sign(self.config, _listed(names), version, again=again, why=why, wait=wait, say=say)

    def sbom(self, name: str, version: int | None = None) -> bytes:
        """What a version is made of, by default the newest, as CycloneDX JSON. Raises RepositoryError for none such."""
        from modelwright.operations.sign import sbom

        return sbom(self.config, name, version)

    @contextmanager
    def serve(
        self,
        *,
        ports: Ports | None = None,
        poll: bool = False,
        environment: str = "",
        startup_timeout_s: float | None = None,
        say: Say = _quiet,
    ) -> Iterator[Served]:
        """Serve the repository on a local tritonserver while the block lasts; the server's URLs are `served.urls`.

        It listens on 127.0.0.1, on free ports unless given. With `poll` it follows changes of the repository. Models
        with a config for `environment` run with that one. Models that do not load are in `served.refused`, with the
        server's reason. The server gets `startup_timeout_s` to load them all, by default what modelwright.toml says,
        or else as long as their number and size suggest. Raises ServerError when it does not start.
        """
        from modelwright.operations.serve import serve

        config = replace(self.config, startup_timeout_s=startup_timeout_s) if startup_timeout_s else self.config
        with serve(config, ports=ports, poll=poll, environment=environment, say=say) as served:
            yield served

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        url: str | None = None,
        access: Access | None = None,
        version: str = "",
        sample: int = 0,
        top: int = 3,
        say: Say = _quiet,
    ) -> Answer:
        """Send one request: `inputs` (arrays or nested lists by name), or else the golden sample of that number.

        Arrays have the batch dimension where the model has one; one that lacks it gets a batch of 1. `url` is the
        server, reached with `access`; without one, that of `modelwright serve` on port 8000, or one that is started for
        this call. `top` classes come back of an output with labels. Raises ServerError when the server refuses,
        ModelwrightError for inputs that the model does not have.
        """
        from modelwright.operations.infer import infer

        return infer(
            self.config,
            model,
            url=url,
            access=access,
            version=version,
            sample=sample,
            inputs=inputs,
            top=top,
            say=say,
        )

    def bench(self, names: Names, asked: Asked | None = None, *, progress: Progress | None = None) -> list[BenchResult]:
        """Measure the variants of these models side by side. One result a builder; `pick` uses the last of each.

        A contender that cannot be measured is a row with the reason. Raises SpecError for an unknown name,
        RepositoryError where nothing of a builder is published, LoadError for what `asked` says and cannot be.
        """
        from modelwright.bench.bench import Asked
        from modelwright.loadtest.measure.progress import Progress
        from modelwright.operations.bench import bench_models

        return bench_models(self.config, _listed(names), asked or Asked(), progress or Progress())

    def pick(
        self, name: str, objective: Objective, *, batch: int | None = None, write: bool = False, alias: str = ""
    ) -> Picked:
        """The best published variant of a model by the last `bench`; with `write` its alias serves it from then on.

        Raises LoadError where that result is missing, damaged, older than the versions or of another machine, and
        SpecError where there is no alias to write to, or its clients would see other tensors.
        """
        from modelwright.operations.pick import pick

        return pick(self.config, name, objective, batch=batch, write=write, alias=alias)

    def plan_rollout(self, asked: Canary, settings: RolloutSettings | None = None) -> RolloutPlan:
        """What `rollout` would do, a line each. Servers are asked, and nothing changes. Raises as `rollout` does."""
        from modelwright.operations import rollout

        return rollout.plan(self.config, asked, settings or rollout.RolloutSettings())

    def rollout(
        self, asked: Canary, settings: RolloutSettings | None = None, *, watcher: Watcher | None = None
    ) -> RolledOut:
        """Serve a version on one server, judge it under load, and then on the others, one after the other.

        Where the figures speak against it, `judged.against` of the result says which, and the canary was put back; the
        repository and the other servers were not touched. `watcher` is told how it goes. Raises ServerError,
        RepositoryError or LoadError before anything has changed; FleetError where a server did not follow, and then all
        was put back but for what it names.
        """
        from modelwright.fleet.watcher import Watcher
        from modelwright.operations import rollout

        return rollout.rollout(self.config, asked, settings or rollout.RolloutSettings(), watcher or Watcher())

    def lock(self, names: Names = (), *, upgrade: bool = False, say: Say = _quiet) -> list[LockedModel | LockedSources]:
        """Resolve requirements of Python models into requirements.lock, URIs of sources into source.lock.

        One result a lock. A lock that fits stays; `upgrade` takes the newest versions of requirements. Raises SpecError
        for requirements that cannot be met and for a named model with nothing to lock, ModelwrightError for a URI that
        cannot be resolved, StepError without uv or a package index, LockedError while a build runs.
        """
        from modelwright.operations.lock import lock

        return lock(self.config, _listed(names), say, upgrade=upgrade)

    def update(self, names: Names = (), *, dry_run: bool = False, say: Say = _quiet) -> list[LockedSources]:
        """Resolve URIs of sources again, and write into source.lock what is there now. One result a model with URIs.

        `changes` of a result says what moved. With `dry_run` nothing is written. Raises ModelwrightError for a URI that
        cannot be resolved, LockedError while a build runs.
        """
        from modelwright.operations.lock import update

        return update(self.config, _listed(names), say, dry_run=dry_run)

    def preview(self, name: str, output: Path | str | None = None, *, augment: str | None = None) -> Preview:
        """Draw augmented samples of a model: a grid, the originals in its first column.

        `augment` is module:function of the builder, which takes and returns a batch of images; by default the function
        `augment` beside the one that trains. `output` is by default in the project's state. Raises SpecError where
        there is no such function, StepError where it does not work.
        """
        from modelwright.operations.preview import preview

        return preview(self.config, name, Path(output) if output else None, augment)

    def new(self, name: str, kind: str = "torch", template: str | None = None) -> Scaffold:
        """Write a builder to start from; it builds as it is. `template` is one of the kind's.

        Raises SpecError for a name that is taken or not valid, and for an unknown template.
        """
        from modelwright.operations.scaffold import new_builder

        return new_builder(self.config, name, kind, template)

    def new_from(self, name: str, given: Path | str, kind: str | None = None, *, say: Say = _quiet) -> Scaffold:
        """Write a builder around a model: a file, folder or URI of any kind that is recognised, or only of `kind`.

        Where `builds` is false in the result, `written.left` says what is left to you. Raises ModelwrightError for
        what is not recognised, or cannot be served.
        """
        from modelwright.operations.scaffold import new_from

        return new_from(self.config, name, str(given), kind, say)

    def track(self) -> Sent:
        """Bring to MLflow what it does not have yet: builds, versions, and which one is live.

        What the registry did not take is in `problem` of the result. Raises TrackingError where the project does not
        ask for MLflow, or it is not installed.
        """
        from modelwright.operations.track import track

        return track(self.config)

    def track_push(self, name: str, *, wait: bool = False, say: Say = _quiet) -> Bundled:
        """Log the whole folder of a model to MLflow's registry, with those of the models that it runs.

        Raises RepositoryError for an unknown name, TrackingError for a registry that does not take it, LockedError
        while a build runs, unless with `wait`.
        """
        from modelwright.operations.track import track_push

        return track_push(self.config, name, wait=wait, say=say)

    def track_pull(self, name: str, *, dry_run: bool = False, wait: bool = False, say: Say = _quiet) -> Pulled:
        """Bring a model that `track_push` logged into the repository: its name, or `runs:/ID`.

        Raises TrackingError for one that the registry does not have; and as `pull` does.
        """
        from modelwright.operations.track import track_pull

        return track_pull(self.config, name, dry_run=dry_run, wait=wait, say=say)

    def push(
        self,
        url: str,
        names: Names = (),
        *,
        endpoint_url: str | None = None,
        delete: bool = False,
        share: bool = False,
        dry_run: bool = False,
        jobs: int = 4,
        settle_s: float = 60,
        wait: bool = False,
        say: Say = _quiet,
    ) -> Pushed:
        """Bring an object store or a folder to what the repository holds. `url` is that of --model-repository.

        Named models bring those that they run. What a server reads there is at every moment a state that loads.
        `delete` removes versions and models that left the repository; `share` allows models of another repository
        beside. Where pipelines move, versions that only the old ones need stay served for `settle_s` seconds. Raises
        RemoteError for a store that refuses or does not answer, RemoteConflictError for other versions under the same
        numbers, LockedError while somebody else pushes, unless with `wait`. A push that ended anywhere is done again.
        """
        from modelwright.operations.remote import push

        return push(
            self.config,
            url,
            _listed(names),
            endpoint_url=endpoint_url,
            delete=delete,
            share=share,
            dry_run=dry_run,
            jobs=jobs,
            settle_s=settle_s,
            wait=wait,
            say=say,
        )

    def pull(
        self,
        url: str,
        names: Names = (),
        *,
        endpoint_url: str | None = None,
        dry_run: bool = False,
        jobs: int = 4,
        wait: bool = False,
        say: Say = _quiet,
    ) -> Pulled:
        """Bring versions from a remote into the repository, under their numbers, each checked before it is published.

        Raises RemoteConflictError for a number that stands for something else here, RemoteError for a version that is
        not what its manifest says, SigningError for one that is not signed as the project requires.
        """
        from modelwright.operations.remote import pull

        return pull(
            self.config,
            url,
            _listed(names),
            endpoint_url=endpoint_url,
            dry_run=dry_run,
            jobs=jobs,
            wait=wait,
            say=say,
        )

    def diff_remote(
        self, url: str, names: Names = (), *, endpoint_url: str | None = None, jobs: int = 4, say: Say = _quiet
    ) -> RemoteDifference:
        """What a push and a pull would change. Nothing is written but the note of what the remote serves."""
        from modelwright.operations.remote import diff_remote

        return diff_remote(self.config, url, _listed(names), endpoint_url=endpoint_url, jobs=jobs, say=say)

    def adopt(self, repository: Path | str, names: Names = (), *, into: Path | str | None = None) -> Adoption:
        """Turn the models of an existing Triton repository into builders of kind prebuilt; it stays untouched.

        `into` is where the builders go, by default the project's builders. Raises RepositoryError for a folder that is
        not a repository and for a name that it does not have. A model that cannot be adopted is in the result.
        """
        from modelwright.operations.adopt import adopt

        return adopt(self.config, Path(repository), _listed(names), Path(into) if into is not None else None)


def lint_repository(path: Path | str, *, target: str | None = None, auto_complete: bool = True) -> LintReport:
    """Lint any model repository, also one that was not built here.

    Where it lies in a project, the release and the ignores are the project's; elsewhere the release is the newest.
    Arguments and errors are those of `Project.lint`.
    """
    from modelwright.operations import lint

    return lint.lint_repository(Path(path), target=target, auto_complete=auto_complete)
