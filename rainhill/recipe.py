"""One run as data: what is learned, on which base, by which rule, for how long.

A recipe names plug-ins and numbers, never code. Sites approve its sha256.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from rainhill.compression import SMALLEST_SHARE, Encoding
from rainhill.config import Name, Positive
from rainhill.toml import Section, read_toml

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PluginSection(Section):
    """A table whose further keys are the fields of the plug-in it names, and are checked by that plug-in."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TaskSection(PluginSection):
    name: Name


class BaseSection(PluginSection):
    """The frozen base model: which architecture, where its weights are, and which weights they must be."""

    model: Name
    weights: str
    """A folder (relative to the recipe), `embedded:NAME` for one that ships with Rainhill, or a hub id."""
    sha256: Sha256
    """Of the listing that `sha256sum config.json model.safetensors` prints in the folder of the weights."""


class LoraSection(Section):
    rank: int = Field(default=8, ge=1, le=4096)
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    modules: str = r"(q_proj|k_proj|v_proj|o_proj|fc1|fc2)"
    """Regular expression that the last part of a module's name must match in full."""
    last_blocks: int | None = Field(default=None, ge=1)
    """Adapt only the last so many blocks; what comes before is computed once per image and kept. All blocks where not given."""
    head: Literal["shared", "frozen"] = "shared"
    """Whether the classification head travels with the adapter, or stays as the base has it."""
    init: Literal["random", "orthonormal", "principal", "gradient"] = "random"
    """Where A begins: drawn; drawn and made orthonormal; along the leading directions of the base's weights, or of its gradient on public
    patients (in simulation those of the hospital in `source/`)."""
    ranks: dict[Name, Annotated[int, Field(ge=1)]] = {}
    """Site -> a lower rank than `rank`, for a hospital with a smaller machine. All share the scale alpha / rank, so products compare."""

    @model_validator(mode="after")
    def _no_rank_above(self) -> "LoraSection":
        for site, rank in self.ranks.items():
            if rank > self.rank:
                raise ValueError(f"ranks: {site} = {rank} is above rank = {self.rank}")
        return self

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class FitSection(Section):
    """One local fit: AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) over batches of patients, one image of each per step."""

    steps: int = Field(ge=1, le=1_000_000)
    patients_per_step: int = Field(default=32, ge=1)
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 1e-3
    """Of the first step; it falls in a straight line to zero over all steps of all rounds."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: Positive = 1.0
    """The gradient of a step is scaled down to this l2 norm where it is longer."""
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far patients with a rare finding are drawn more often: 0 not at all, 1 as much as the finding is rare."""


class RoundsSection(FitSection):
    count: int = Field(ge=1, le=100_000)
    quorum: int = Field(default=1, ge=1)
    """A round with fewer valid updates than this stops the run, which can be resumed."""
    deadline_s: Positive = 3600.0
    """A site that has not answered by then is left out of the round, by name."""


class PrivateSection(FitSection):
    """What a site fits for itself after the rounds, and never sends: its own LoRA pair beside the shared one, its head, its temperature."""

    rank: int = Field(default=4, ge=1, le=4096)
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 8.0

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class PrivacySection(Section):
    """Patient-level differential privacy, asked of every site: each solves its own noise for all steps of all rounds.

    Neighbouring data sets differ by one patient with all images, added or removed. A site's own file may allow less, and then refuses.
    """

    epsilon: Positive
    """Of the whole run."""
    delta: Annotated[float, Field(gt=0, lt=1e-3)] = 1e-5
    max_grad_norm: Positive = 0.1
    """The paper's C: the most that one patient moves the sum of a step's gradients by, in l2 norm. Abadi et al. 2016, arXiv:1607.00133."""
    images_per_patient: int = Field(default=4, ge=1, le=64)
    """A patient's loss is the mean over at most so many images, drawn afresh in each step."""


class SecureSection(Section):
    """The coordinator learns the sum of a round's updates and none of them. Bonawitz et al. 2017, arXiv:1611.04482; `rainhill.secagg`."""

    bound: Positive = 10.0
    """The largest absolute value of an update's entry; one above is refused. A mean is off by at most `bound / 2**17`, and by
    `bound * sites / 2**30` where all sites count alike."""
    dropouts: Annotated[float, Field(ge=0, lt=0.5)] = 0.3
    """Share of the sites that may be lost in a round without losing the round."""


class AugmentationSection(Section):
    """Random views of each training image, beside the image itself; they are drawn once, before the first round.

    Drawn afresh at every step, each would go through the frozen part of the network every time.
    """

    views: int = Field(default=0, ge=0, le=64)
    """Of each image; none where 0."""
    rotation_deg: Annotated[float, Field(ge=0, le=45)] = 7.0
    """At most so far to either side; the same holds of all that follows."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Share of the image's side."""
    zoom: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Logarithm of the exponent on grey values in 0 to 1."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    brightness: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Share of the range from black to white."""


class PartSection(PluginSection):
    """A plug-in by its name alone, or a table of its name and its fields."""

    name: Name

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


Weights = Literal["equal", "capped", "patients"]


class CompressionSection(Section):
    """How the tensors of an update cross."""

    encoding: Encoding = "float32"
    share: Annotated[float, Field(ge=SMALLEST_SHARE, le=1)] = 0.1
    """Of a tensor's entries that `top_k` sends."""
    error_feedback: bool = False
    """Whether what was lost is sent with the next round's. For rounds of one step or a few: in more, a site learns what was lost anew, and
    would send it twice. Refused where the factors have another basis in the next round."""


class StrategySection(PluginSection):
    """How updates become the next adapter. Further keys are the fields of the rule."""

    rule: Name
    weights: Weights = "equal"
    """Equal by default: weights by size favour the large site, and a patient count is a release of its own."""
    cap: Annotated[float, Field(gt=0, le=1)] = 0.5
    """With `weights = "capped"`: by patients, but none above this share."""
    server_optimizer: PartSection | None = None
    robust: PartSection | None = None
    personal: PartSection = PartSection(name="dual")

    def described(self) -> str:
        """Its names joined by `+`, such as `alternating+fedprox`; the usual `dual` goes without saying."""
        parts = [self.rule, *(part.name for part in (self.server_optimizer, self.robust, self.personal) if part is not None)]
        return "+".join(part for part in parts if part != "dual")


class EvaluationSection(Section):
    bootstraps: int = Field(default=500, ge=100, le=100_000)
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    min_positives: int = Field(default=5, ge=1)
    """A finding with fewer positive or fewer negative test images than this is left out of a site's mean."""


class Recipe(Section):
    name: Name
    title: str = ""
    seed: int = Field(default=0, ge=0, lt=2**63)
    sites: tuple[Name, ...] = ()
    """The sites asked to take part; every site of the folder where empty."""
    task: TaskSection
    base: BaseSection
    lora: LoraSection = LoraSection()
    strategy: StrategySection
    rounds: RoundsSection
    private: PrivateSection
    privacy: PrivacySection | None = None
    secure_aggregation: SecureSection | None = None
    augmentation: AugmentationSection = AugmentationSection()
    compression: CompressionSection = CompressionSection()
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="after")
    def _draws_all_alike_under_privacy(self) -> "Recipe":
        if self.privacy is not None and self.rounds.balance:
            raise ValueError(
                f"rounds.balance = {self.rounds.balance:g} with [privacy]: there each patient has to have the same chance to be drawn"
            )
        return self

    @field_validator("sites")
    @classmethod
    def _asks_each_site_once(cls, sites: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({site for site in sites if sites.count(site) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return sites

    def to_json(self) -> str:
        """Canonical: sorted keys, no spaces, defaults written out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def sha256(self) -> str:
        """Of the canonical form, so that neither comments nor the order of keys change it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def read_recipe(path: Path) -> Recipe:
    return read_toml(path, Recipe)
