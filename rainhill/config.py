"""A site's own file, `SiteConfig`, and the sections in it."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from rainhill.listening import ConsoleConfig, MetricsConfig
from rainhill.toml import PathName, Section


def _plain_name(name: str) -> str:
    if not name.isidentifier():
        raise ValueError("a name is letters, digits and underscores, and does not begin with a digit")
    return name


def _window(hours: str) -> str:
    time = "([01][0-9]|2[0-3]):[0-5][0-9]"
    if hours and not re.fullmatch(f"{time}-{time}", hours):
        raise ValueError('is no window of a day such as "19:00-07:00"')
    return hours


Name = Annotated[str, AfterValidator(_plain_name)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Precision = Literal["float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
BasePrecision = Literal["auto", "float32", "bfloat16", "nf4"]


class ColumnsConfig(Section):
    """Which manifest column holds what; an empty name means that the manifest has no such column."""

    patient: str = Field(default="patient", min_length=1)
    image: str = Field(default="image", min_length=1)
    split: str = ""
    sex: str = ""
    age: str = ""
    view: str = ""
    report: str = ""
    indication: str = ""
    """Why the examination was asked for."""
    prior: str = ""
    """The text of the report of the patient's previous examination."""


class SplitConfig(Section):
    """How patients, never images, are dealt into parts where the manifest does not say."""

    val: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of all patients, with folds too."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.25
    seed: int = Field(default=0, ge=0, lt=2**63)
    by: Literal["labels", "patient"] = "labels"
    """labels: each finding is spread evenly over the parts, so that where one patient goes depends on who else is there. patient: each goes
    by a lot of its own, which differential privacy rests on, and parts are only about as large as asked."""
    folds: int | None = Field(default=None, ge=2)
    """With `folds` set, the test part is fold number `fold` of a stratified k-fold over patients, and `test` is not used."""
    fold: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "SplitConfig":
        if self.folds is None and self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave no patient to train on")
        if self.folds is not None and self.val + 1 / self.folds >= 1:
            raise ValueError(f"val {self.val} and one of {self.folds} folds leave no patient to train on")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} is not one of 0 to {self.folds - 1}")
        return self


class DataConfig(Section):
    """Where a site's images are: a manifest with one row per image, and the folder its paths start from."""

    manifest: PathName
    """CSV or Parquet. This and `images` may begin with `~`; a relative path starts from the folder of the site's own file."""
    images: PathName | None = None
    """Folder that the image column is relative to; the manifest's own folder where not given."""
    columns: ColumnsConfig = ColumnsConfig()
    labels: dict[str, str] = {}
    """Finding -> column. A finding not listed is looked for under its own name, and is unlabelled where there is no such column."""
    where: dict[str, str] = {}
    """Column -> value: only rows that match all of these belong to the site."""
    split: SplitConfig = SplitConfig()


class PrivacyConfig(Section):
    """What a site lets its patients spend, whoever asks: patient-level differential privacy, add or remove one patient.

    A recipe that asks for more is refused, by name and both values; one that asks for less gets less.
    """

    epsilon: Positive = 8.0
    """Of one patient, over all runs and tasks, for good. A patient who has spent it is no longer drawn."""
    epsilon_per_run: Positive | None = None
    """Of one run; `epsilon` where not given."""
    epsilon_per_year: Positive | None = None
    """Of one patient, over any 365 days; `epsilon` is the only limit where not given."""
    epsilon_per_cohort: Positive | None = None
    """Of all runs on the same data set together; `epsilon` is the only limit where not given."""
    delta: Annotated[float, Field(gt=0, lt=1e-3)] = 1e-5
    """At which every epsilon here is told. Keep it well below one over the number of patients."""
    release: Literal["withheld", "suppressed", "noised"] = "withheld"
    """Losses and metrics of an update: withheld; sent as they are unless fewer than `min_patients` stand behind them, which is no
    differential privacy; or noised, charged to the same ledger."""
    release_epsilon: Positive = 0.5
    """With `release = "noised"`: of one run, for the numbers beside its updates."""
    min_patients: int = Field(default=10, ge=1)
    """Below so many patients no number is sent as it is."""
    declared_patients: int | None = Field(default=None, ge=1)
    """A round number that the site is content to be known by: the weight of its updates, where a recipe weighs by patients."""

    noise: Literal["secret", "simulated"] = "secret"
    """simulated: draws that anybody can work out from the recipe's seed, which protect nobody: for rehearsals on phantoms."""

    @property
    def most_in_one_run(self) -> float:
        """Epsilon that a recipe may ask for. All of a run may fall into one year."""
        return min(self.epsilon, self.epsilon_per_run or self.epsilon, self.epsilon_per_year or self.epsilon)

    def counted(self, patients: int) -> int:
        """Of so many training patients, how many the site is known to have, and draws its lots for."""
        return self.declared_patients or patients

    @model_validator(mode="after")
    def _no_part_above_the_whole(self) -> "PrivacyConfig":
        for name in ("epsilon_per_run", "epsilon_per_year", "epsilon_per_cohort"):
            part = getattr(self, name)
            if part is not None and part > self.epsilon:
                raise ValueError(f"{name} = {part:g} is above epsilon = {self.epsilon:g}, which is of all runs together")
        return self


class PolicyConfig(Section):
    """What a person at the site may be asked to approve. What is outside is refused by name, before anybody is troubled with it."""

    tasks: tuple[Name, ...] | None = None
    """Names of tasks; any where not given. The same holds of the next two."""
    bases: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] | None = None
    """sha256 of base models."""
    rules: tuple[Name, ...] | None = None
    """Strategies."""
    rounds: int | None = Field(default=None, ge=1)
    """Of one run, at most."""
    min_patients: int = Field(default=10, ge=1)
    """With fewer training patients the site takes no part."""
    max_pending: int = Field(default=50, ge=1)
    """Offers that nobody has decided on which the site keeps, at most; further ones are refused, so that they cannot fill its disk."""
    hours: Annotated[str, AfterValidator(_window)] = ""
    """When it may train, in the machine's own time, such as "19:00-07:00"; always where empty. A fit that has begun is finished."""
    hold: bool = False
    """Whether each update stays until somebody at the site releases it."""
    max_update_norm: Positive | None = None
    """The longest update, in l2 norm over all its tensors, that may leave; any that is finite where not given."""
    tell_outcome: bool = False
    """Whether the consortium is told what a run came to here: the task's measure (AUROC, or label F1 of drafts) of the base, of the shared
    adapter and of the site's own part, with intervals, on at least `min_patients` held-out patients. That is no differential privacy."""


class ComputeConfig(Section):
    """What of this machine a fit may take."""

    device: Device = "auto"
    precision: BasePrecision = "auto"
    """Of the frozen base model's weights."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Processor cores; all where not given."""
    gpu_memory_gib: Positive | None = None
    """At most so much of a GPU's; all where not given."""


class NetworkConfig(Section):
    """How the way out of the hospital goes. The coordinator's address and authority are in the bundle."""

    proxy: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """URL of an HTTP proxy that lets CONNECT through; HTTPS_PROXY of the environment where empty."""
    extra_ca: PathName | None = None
    """PEM of an authority that is trusted besides the consortium's: of a proxy that opens TLS on the way, which then sees updates and could
    change them. A relative path starts from the folder of this file."""


class SiteConsoleConfig(ConsoleConfig):
    port: int = Field(default=9447, ge=0, le=65535)
    """0: nowhere."""


class SiteMetricsConfig(MetricsConfig):
    epsilon: bool = False
    """Whether what the patients have spent is told too: of the one who has spent most."""


class SiteConfig(Section):
    """One hospital's own file. The site is sovereign: nothing in here is set by anybody else."""

    name: Name
    title: str = ""
    state: PathName | None = None
    """Folder of what the site keeps from run to run: its privacy ledger, and the key that its patients' pseudonyms are made with.
    It may begin with `~`; a relative path starts from the folder of this file, and `NAME-state` beside it is taken where not given."""
    data: DataConfig | None = None
    prefix: Precision = "float32"
    """How what the frozen part of the network gives is kept between steps: in memory, or on disk where it is too large for that.
    bfloat16 takes half the room, and changes the model's output by some thousandths."""
    compute: ComputeConfig = ComputeConfig()
    network: NetworkConfig = NetworkConfig()
    metrics: SiteMetricsConfig = SiteMetricsConfig()
    console: SiteConsoleConfig = SiteConsoleConfig()
    policy: PolicyConfig = PolicyConfig()
    privacy: PrivacyConfig | None = None
    """Without it the site takes part in runs without privacy too."""

    @model_validator(mode="after")
    def _deals_patients_one_by_one(self) -> "SiteConfig":
        data = self.data
        if self.privacy is not None and data is not None and not data.columns.split and data.split.by != "patient":
            raise ValueError(
                f"data.split.by = {data.split.by!r} with [privacy]: with one patient more, others too would be trained on; "
                'set by = "patient", or name a column of the manifest with data.columns.split'
            )
        return self

    @model_validator(mode="after")
    def _tells_no_number_that_it_withholds(self) -> "SiteConfig":
        if self.policy.tell_outcome and self.privacy is not None and self.privacy.release != "suppressed":
            raise ValueError(
                f"policy.tell_outcome = true with privacy.release = {self.privacy.release!r}: an outcome is told as it is; "
                'set release = "suppressed", or tell_outcome = false'
            )
        return self

    @property
    def least_patients(self) -> int:
        """Below so many no number of theirs is told as it is."""
        return max(self.policy.min_patients, self.privacy.min_patients if self.privacy else 1)


def state_folder(site_file: Path, config: SiteConfig) -> Path:
    """Where the site of this file keeps what it keeps."""
    return site_file.absolute().parent / (config.state.expanduser() if config.state else f"{config.name}-state")
