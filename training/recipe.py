"""How the models are trained: one recipe for every data set; by default the one that serves."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """Settings of the tower's and the ranker's training; frozen, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history_length: int = Field(200, ge=1, description="events of a history that the tower sees")
    half_lives: tuple[float, ...] = Field(
        (0.5, 2.0, 6.0, 20.0, 60.0),
        description="half-lives of the history's decayed sums at the start, in events",
    )
    hidden: int = Field(256, ge=1, description="width of the user tower's first layer")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout inside the user tower")
    id_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="probability that a step sees an item's features alone, and a user's history",
    )
    targets_ahead: int = Field(1, ge=1, description="next events that a position predicts")
    targets_decay: float = Field(
        0.0, ge=0, description="the k-th of them counts k to the power of minus this as much"
    )
    shuffled: bool = Field(
        False, description="whether events are learned from in a random order, another each epoch"
    )

    encoder: Literal["decayed-sums", "transformer"] = Field(
        "decayed-sums", description="what the user tower makes of a history's order"
    )
    transformer_blocks: int = Field(2, ge=1, le=8, description="layers of the transformer")
    transformer_heads: Literal[1, 2, 4, 8] = Field(4, description="attention heads of each layer")
    user_ids: bool = Field(
        False,
        description="whether every known user also has a learned vector; new users have none",
    )
    user_features: bool = Field(
        False,
        description="whether the tower reads what TRAIN says of every known user besides the "
        "order: ratings, pace and recency; new users have none",
    )
    unseen_by_features: bool = Field(
        False,
        description="whether items without training events stay out of the loss and are placed by "
        "their features alone",
    )

    loss: Literal["softmax", "sampled-softmax", "in-batch", "mixed", "bpr", "mse", "mse+bpr"] = (
        Field("softmax", description="what training makes small; see docs/recipes.md")
    )
    temperature: float = Field(
        1.0, gt=0, description="what scores are divided by in the in-batch and mixed losses"
    )
    sampling_power: float = Field(
        0.5,
        ge=0,
        le=1,
        description="sampled-softmax draws items by their events to this power; 0 is uniform",
    )
    given_below: float = Field(
        3.0, description="mixed: a rating under this makes the item a negative of its user"
    )
    given_negatives: int = Field(
        8, ge=1, description="mixed: such items of a user that a step sees, at most"
    )
    mse_share: float = Field(
        0.5, gt=0, lt=1, description="mse+bpr: share of the first; the rest is the second's"
    )

    epochs: int = Field(16, ge=1, description="passes over the events, at most")
    patience: int = Field(
        3, ge=1, description="epochs without a better validation NDCG@10 before training stops"
    )
    batch_positions: int = Field(
        2048, ge=1, description="predicted events in a step, all workers together, about"
    )
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size")
    second_moment_decay: float = Field(0.98, gt=0, lt=1, description="Adam's beta2")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    average_decay: float = Field(
        0.995,
        ge=0,
        lt=1,
        description="decay, per step, of the running average of the weights that is kept",
    )
    gradient_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    full_softmax_items: int = Field(
        20_000, ge=1, description="largest catalogue whose softmax is computed in full"
    )
    sampled_items: int = Field(
        1024, ge=256, description="uniform negatives of a step where the catalogue is larger"
    )

    blend: bool = Field(
        True,
        description="whether the learned tower is blended with a linear one and with popularity, "
        "by weights chosen on validation users",
    )

    candidates: int = Field(
        200, ge=100, description="items the tower hands to the ranker for each user"
    )
    ranker: Literal["lambdamart", "xgboost", "dcn-v2", "deepfm"] = Field(
        "lambdamart", description="the second stage: trees, or a deep network"
    )
    ranker_trees: int = Field(60, ge=1, le=200, description="trees of lambdamart and xgboost")
    ranker_leaves: int = Field(7, ge=2, le=31, description="leaves of each tree")
    ranker_learning_rate: float = Field(0.08, gt=0, description="shrinkage of each tree")
    ranker_epochs: int = Field(6, ge=1, description="passes of a deep ranker over its users")
    ranker_step_size: float = Field(2e-3, gt=0, description="a deep ranker's Adam step size")
    choosing_share: float = Field(
        0.4,
        gt=0,
        le=1,
        description="validation users that choose the tower's epoch and the blend",
    )
    ranker_max_users: int = Field(
        10_000, ge=1, description="validation users that train the ranker, at most"
    )
    ranker_users: int = Field(
        50, ge=2, description="users with a hit among their candidates that a ranker needs"
    )


def recipe_for(protocol: str) -> Recipe:
    """The recipe for what a protocol asks: the very next event, events to come, or any events.

    Chosen on MovieLens-1M without its TEST events (docs/evaluation.md). The first one serves.
    """
    if protocol == "leave-one-out":
        return Recipe()
    if protocol == "user-random":
        return Recipe(targets_ahead=30, targets_decay=0.7, shuffled=True)
    return Recipe(targets_ahead=30, targets_decay=0.7)
