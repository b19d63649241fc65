"""Tables of fair sharing: priority classes, flows and their backlog."""

from __future__ import annotations

from sqlalchemy import Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from imagefarm.store.models.base import ID, Base


class FlowClass(Base):
    """A priority class in fair sharing. The row `root` holds the virtual time between classes."""

    __tablename__ = "flow_class"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    weight: Mapped[float]
    pass_: Mapped[float] = mapped_column("pass", default=0.0)
    vtime: Mapped[float] = mapped_column(default=0.0)
    """Virtual time among the flows of this class (for `root`: among the classes)."""
    active: Mapped[bool] = mapped_column(default=False)
    """Whether the class had work at the last claim. An idle class restarts at the current virtual time."""


class Flow(Base):
    """A flow: a tenant within a priority class, the unit of fair sharing. Virtual time is in GPU-seconds over weight."""

    __tablename__ = "flow"
    priority_class: Mapped[str] = mapped_column(String(16), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    weight: Mapped[float] = mapped_column(default=1.0)
    pass_: Mapped[float] = mapped_column("pass", default=0.0)
    active: Mapped[bool] = mapped_column(default=False, index=True)


class Backlog(Base):
    """Counts of a flow's queued and running jobs on a lane. They change only in the transaction that changes the jobs."""

    __tablename__ = "backlog"
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    priority_class: Mapped[str] = mapped_column(String(16), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    queued: Mapped[int] = mapped_column(Integer, default=0)
    running: Mapped[int] = mapped_column(Integer, default=0)
