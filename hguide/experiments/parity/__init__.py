"""Replaying what the official programs recorded."""

from hguide.experiments.parity.report import Report
from hguide.experiments.parity.run import parity

__all__ = ["Report", "parity"]
