"""What was seen and done at some moments: what opponent models are fitted to and judged by.

Shape suffixes: M moments, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from presage.common.game import Rows, View


@dataclass(frozen=True, kw_only=True)
class Moments:
    """M moments: what could be seen, and what all agents did then."""

    view: View
    act: Tensor
    """(M, A) joint actions"""

    def __len__(self) -> int:
        return len(self.act)

    def __getitem__(self, index: Tensor | slice) -> Moments:
        return Moments(view=self.view[index], act=self.act[index])

    @classmethod
    def of(cls, rows: Rows) -> Moments:
        """Those that transitions begin with."""
        return cls(view=rows.view, act=rows.act)
