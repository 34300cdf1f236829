"""Which views are trusted: entropy filters by name, one pool or one quota for each kind of view.

Views lie in one order everywhere: the real image, its crops, the generated ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hb_tta.errors import UserError, choose_from


@dataclass(frozen=True)
class ViewFilter:
    """The views most like the real one, and of those the ones the model is surest of.

    Attributes:
        selection: the share of a pool that is kept at last.
        crops: random crops of an image, beside it and beside its generated views, where nobody says
            otherwise.
        cosine: what likeness is measured on: "features", "logits" or None, where every view counts
            as like.
        generated_only: only generated views have to be like; crops are by nature.
        like: the share of views that are kept for their likeness.
    """

    selection: float
    crops: int
    cosine: str | None = None
    generated_only: bool = False
    like: float = 0.8


FILTERS = {
    # Shu et al. 2022: the 10 % of lowest entropy among the image and 63 crops.
    "tpt": ViewFilter(0.1, 63),
    # Feng et al. 2023: 65 views of the usual kind beside 63 generated ones. Section 3.3: the cosine
    # is of features, and generated views pass it.
    "difftpt-paper": ViewFilter(0.3, 64, "features", generated_only=True),
    # Its code: the cosine is of logits, and all views pass it.
    "difftpt-code": ViewFilter(0.3, 64, "logits"),
}


def get_filter(name: str) -> ViewFilter:
    """The filter of that name.

    Raises:
        UserError: there is none.
    """
    if name not in FILTERS:
        raise UserError(f"view filter {name!r} is not known{choose_from(name, FILTERS)}")
    return FILTERS[name]


def select_views(
    logits_BVC: Tensor,
    features_BVD: Tensor,
    *,
    name: str = "tpt",
    selection: float | None = None,
    generated: int = 0,
    generated_selection: float | None = None,
) -> Tensor:
    """The chosen views' places (B, K), by falling confidence within a pool.

    The real image is not forced in, as in TPT's code. Shares are rounded down, to at least one.

    Args:
        name: one of ``FILTERS``.
        selection: share of the views that is kept; None: the filter's own.
        generated: how many views, the last ones, are generated.
        generated_selection: a quota of their own for the generated views; None: one pool.

    Raises:
        UserError: a share is not in (0, 1], or there are more generated views than views.
    """
    view_filter = get_filter(name)
    share = view_filter.selection if selection is None else selection
    views = logits_BVC.shape[1]
    check_shares(share, generated_selection)
    if not 0 <= generated < views:
        raise UserError(f"{generated} generated views of {views} leave no real one: use fewer")
    pools = [(0, views, share)]
    if generated and generated_selection is not None:
        real = views - generated
        pools = [(0, real, share), (real, views, generated_selection)]
    likeness_BV = _likeness(view_filter, logits_BVC, features_BVD)
    entropy = view_entropy(logits_BVC)
    chosen = []
    for begin, end, its_share in pools:
        kept = _like(view_filter, likeness_BV, begin, end, views - generated)
        order = entropy.gather(1, kept).argsort(dim=1, stable=True)
        chosen.append(kept.gather(1, order[:, : _count(its_share, kept.shape[1])]))
    return torch.cat(chosen, 1)


def check_shares(*shares: float | None) -> None:
    """Raises UserError for a share of views that is not in (0, 1]; None is nobody's."""
    for share in shares:
        if share is not None and not 0 < share <= 1:
            raise UserError(f"a selection of {share} is out of range: use more than 0, at most 1")


def view_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats over the last dimension of logits."""
    log_p = F.log_softmax(logits, -1)
    return -(log_p.exp() * log_p).sum(-1)


def _likeness(view_filter: ViewFilter, logits_BVC: Tensor, features_BVD: Tensor) -> Tensor:
    if view_filter.cosine is None:
        return torch.ones_like(logits_BVC[..., 0])
    values = features_BVD if view_filter.cosine == "features" else logits_BVC
    return F.cosine_similarity(values, values[:, :1], dim=-1)


def _like(
    view_filter: ViewFilter, likeness_BV: Tensor, begin: int, end: int, first_generated: int
) -> Tensor:
    """Places (B, …), in rising order, of a pool's views that are like the real one."""
    start = begin
    if view_filter.cosine is None:
        start = end
    elif view_filter.generated_only:
        start = max(begin, first_generated)
    always = torch.arange(begin, start, device=likeness_BV.device).expand(len(likeness_BV), -1)
    if start == end:
        return always
    order = likeness_BV[:, start:end].argsort(dim=1, descending=True, stable=True)
    kept = order[:, : _count(view_filter.like, end - start)].sort(1).values + start
    return torch.cat([always, kept], 1)


def _count(share: float, views: int) -> int:
    return max(1, int(share * views))
