"""The sections of a training recipe. Defaults live here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pydantic

from envgym.config import NamedSection, Section, as_table
from envgym.env.shared_tools import ToolSettings
from envgym.rollout.cluster import ClusterChoice
from envgym.rollout.mix import MixEntry
from envgym.runs.stage import Stage
from envgym_trainers.controls import RewardSettings
from envgym_trainers.engine.interface import EngineChoice
from envgym_trainers.models.load import ModelConfig
from envgym_trainers.models.recompute import Checkpointing
from envgym_trainers.truncation import TruncatedSettings

__all__ = [
    "AsynchronousConfig",
    "AuxiliaryConfig",
    "EvaluateConfig",
    "JudgeConfig",
    "OptimizerConfig",
    "ReinforcementRecipe",
    "RoleConfig",
    "SandboxConfig",
    "SamplingConfig",
    "StageRecipe",
    "SupervisedRecipe",
]


class SamplingConfig(Section):
    """Sampling of completions, in training and in evaluation alike."""

    temperature: float = pydantic.Field(default=1.0, gt=0, description="divides the logits; below 1 is sharper")
    max_tokens: int | None = pydantic.Field(
        default=None,
        ge=1,
        description="sampled tokens per turn; if left out, what the model's generation configuration says, or as "
        "many as the context has room for",
    )
    concurrency: int = pydantic.Field(default=64, ge=1, description="episodes in flight")
    deadline: float = pydantic.Field(default=300.0, gt=0, description="seconds for one episode")
    retries: int = pydantic.Field(default=1, ge=0, description="further attempts at a failed episode")
    failure_limit: float = pydantic.Field(
        default=0.5, ge=0, le=1, description="share of failed episodes above which the run stops"
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _samples_from_everything(cls, values: Any) -> Any:
        """Refuse truncated sampling by name: the learner would compare with log-probs of another distribution."""
        cut = [name for name in ("top_k", "top_p", "min_p") if isinstance(values, dict) and name in values]
        if cut:
            raise ValueError(
                f"{cut[0]}: training samples from the whole distribution, because the learner's log-probs are "
                f"over all tokens; lower the temperature instead, or set evaluate.{cut[0]} for evaluation alone"
            )
        return values


class AsynchronousConfig(Section):
    """Episodes go on while the model learns; 0, the default, lets the two take turns."""

    max_staleness: int = pydantic.Field(
        default=0,
        ge=0,
        description="versions that a token may be older than the weights it trains; above 0, episodes go on while "
        "the model learns, and the engine runs a copy of the model",
    )


class OptimizerConfig(Section):
    """AdamW with a linear warm-up and a constant or linearly falling rate."""

    learning_rate: float = pydantic.Field(default=1e-6, gt=0, description="step size of AdamW after the warm-up")
    warmup_steps: int = pydantic.Field(default=0, ge=0, description="updates over which the rate rises from 0")
    decay: Literal["constant", "linear"] = pydantic.Field(
        default="constant", description="linear: the rate falls to 0 at the end of the run"
    )
    weight_decay: float = pydantic.Field(default=0.0, ge=0, description="decoupled weight decay of AdamW")
    betas: tuple[float, float] = pydantic.Field(
        default=(0.9, 0.95), description="AdamW's decay rates of the first and the second moment"
    )
    clip_norm: float = pydantic.Field(default=1.0, gt=0, description="gradient norm is clipped to this")
    micro_batch_tokens: int = pydantic.Field(
        default=1024, ge=1, description="tokens per forward pass, padding included; more is faster on a GPU"
    )
    gradient_checkpointing: Checkpointing = pydantic.Field(
        default="selective",
        description="what a layer computes again in the backward pass instead of keeping it: nothing (off), all "
        "but matrix products and attention (selective), everything (full); off is fastest for small models",
    )


class ReferenceConfig(Section):
    """The model that a KL penalty or a preference loss compares with."""

    path: str = pydantic.Field(default="", description="as model.path; the run's start model by default")


class CriticConfig(Section):
    """The value model of an actor-critic objective: a copy of the start model with a value head."""

    learning_rate: float = pydantic.Field(default=1e-5, gt=0, description="scheduled like the policy's")


class RewardModelConfig(Section):
    """A learnt reward model."""

    path: str = pydantic.Field(default="", description="a folder with a sequence classifier of one label")


class AuxiliaryConfig(Section):
    """Models beside the policy; each is loaded only if the objective needs it."""

    reference: ReferenceConfig = ReferenceConfig()
    critic: CriticConfig = CriticConfig()
    reward: RewardModelConfig = RewardModelConfig()


class EvaluateConfig(Section):
    """Held-out evaluation before and after training, greedily and sampled."""

    tasks: int = pydantic.Field(default=64, ge=1, description="held-out problems per environment")
    samples: int = pydantic.Field(default=1, ge=1, description="sampled episodes per problem")
    temperature: float | None = pydantic.Field(
        default=None, gt=0, description="of the sampled episodes; sampling.temperature if left out"
    )
    top_k: int = pydantic.Field(
        default=0, ge=0, description="ids that sampled episodes choose from, the likeliest; 0 is all"
    )
    top_p: float = pydantic.Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the probability that the likeliest ids, which sampled episodes choose from, have",
    )
    min_p: float = pydantic.Field(
        default=0.0,
        ge=0,
        le=1,
        description="sampled episodes draw no id less likely than this share of the likeliest",
    )
    every: int = pydantic.Field(
        default=0, ge=0, description="steps between evaluations in training, the best of which is kept; 0 is none"
    )


class SandboxConfig(NamedSection):
    """The sandbox of untrusted programs; ``sandbox = "docker"`` is short for a table with that name."""

    name: str = pydantic.Field(
        default="auto", description="a backend; auto is the best isolating one that works here"
    )
    settings: dict[str, Any] = pydantic.Field(default_factory=dict, description="settings of the named backend")


class JudgeConfig(NamedSection):
    """The language model that grades; ``judge = "URL#MODEL"`` is short for a table with that name."""

    name: str = pydantic.Field(default="", description="URL#MODEL of an OpenAI-compatible server; empty is none")
    settings: dict[str, Any] = pydantic.Field(
        default_factory=dict,
        description="max_tokens of a reply, timeout of a request and pause before a retry in seconds",
    )


class RoleConfig(Section):
    """The player of a role in nested episodes, in the place of the trained policy; it is not trained."""

    policy: str = pydantic.Field(
        examples=["gold"],
        description="gold, a policy's name, package.module:Class, a model's or run's folder, or URL#MODEL",
    )
    settings: dict[str, Any] = pydantic.Field(default_factory=dict, description="settings of that policy")


class StageRecipe(Stage.Config):
    """Keys of every stage of this trainer."""

    threads: int = pydantic.Field(default=0, ge=0, description="torch threads; 0 is every core")
    reproducible: bool = pydantic.Field(
        default=True,
        description="equal runs are equal bit for bit on one machine: nothing is sampled until every episode has "
        "asked; false is faster where tools are slow",
    )
    sandbox: SandboxConfig = SandboxConfig()
    judge: JudgeConfig = JudgeConfig()
    tools: ToolSettings = ToolSettings()
    model: ModelConfig = ModelConfig()
    engine: EngineChoice = pydantic.Field(default_factory=EngineChoice)
    cluster: ClusterChoice = pydantic.Field(default_factory=ClusterChoice)
    mix: tuple[MixEntry, ...] = pydantic.Field(
        min_length=1, description="One environment of the mix; a recipe has one such table or more."
    )
    roles: dict[str, RoleConfig] = pydantic.Field(
        default_factory=dict, description="policies by role; the policy being trained plays the other roles"
    )
    sampling: SamplingConfig = SamplingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    auxiliary: AuxiliaryConfig = AuxiliaryConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint_every: int = pydantic.Field(default=10, ge=1, description="steps between checkpoints")

    def identity(self) -> dict[str, Any]:
        """Return the settings by which a checkpoint is known to be this run's; it would not fit others."""
        model = self.model
        return {
            "stage": self.stage,
            "model.path": model.path,
            "model.lora_rank": model.lora_rank,
            "model.new": model.new.model_dump() if model.new else None,
        }


class ReinforcementRecipe(StageRecipe):
    """Reinforcement learning over a mix of environments."""

    steps: int = pydantic.Field(default=100, ge=1, description="steps of sampling and learning")
    max_minutes: float = pydantic.Field(
        default=0.0, ge=0, description="minutes after which training ends cleanly; 0 is no limit"
    )
    max_sampled_tokens: int = pydantic.Field(
        default=0, ge=0, description="tokens sampled in training after which it ends cleanly; 0 is no limit"
    )
    groups: int = pydantic.Field(default=8, ge=1, description="groups per step, over the whole mix")
    group_size: int = pydantic.Field(default=8, ge=2, description="trajectories per group")
    updates: int = pydantic.Field(default=1, ge=1, description="optimizer updates per pass over a step's batch")
    epochs: int = pydantic.Field(default=1, ge=1, description="passes over a step's batch")
    mismatch_limit: float = pydantic.Field(
        default=0.1,
        gt=0,
        description="mean difference between the log-probs of engine and trainer, in nats, at which the run stops",
    )
    asynchronous: AsynchronousConfig = AsynchronousConfig()
    objective: Annotated[dict[str, Any], pydantic.BeforeValidator(as_table)] = pydantic.Field(
        default_factory=lambda: {"name": "dapo"}, description="name, and the settings of that objective"
    )
    reward: RewardSettings = RewardSettings()
    truncated: TruncatedSettings = TruncatedSettings()

    @pydantic.model_validator(mode="after")
    def _needs_a_model(self) -> Self:
        if self.model.new is not None:
            raise ValueError("model.new is for supervised stages (stage = 'sft'); name a model with model.path")
        return self

    @pydantic.model_validator(mode="after")
    def _timing_is_not_reproducible(self) -> Self:
        if self.asynchronous.max_staleness and self.reproducible:
            raise ValueError(
                "asynchronous.max_staleness lets timing decide which weights sample a token, so that equal runs "
                "are not equal: set reproducible = false beside it, or max_staleness = 0"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """Return the settings by which a checkpoint is known to be this run's."""
        return {**super().identity(), "objective.name": self.objective.get("name")}


class SupervisedRecipe(StageRecipe):
    """Imitation of the environments' scripted experts, or of experts and beginners."""

    examples: int = pydantic.Field(default=4000, ge=1, description="demonstrations, over the whole mix")
    epochs: float = pydantic.Field(default=1.0, gt=0, description="passes over the examples; may be fractional")
    batch_size: int = pydantic.Field(default=64, ge=1, description="trajectories per update")
    novice: float = pydantic.Field(
        default=0.0, ge=0, le=1, description="share of the demonstrations that the environments' beginners give"
    )
