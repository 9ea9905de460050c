"""Contract suites: call them on your own generator, guidance, prior or schedule; every registered entry passes them."""

from hguide.testing.generator import check_generator
from hguide.testing.guidance import check_guidance
from hguide.testing.prior import check_prior
from hguide.testing.schedule import check_schedule

__all__ = ["check_generator", "check_guidance", "check_prior", "check_schedule"]
