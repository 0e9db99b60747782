"""Conformance: the API's contract as black-box checks against any deployment.

Depends on ``catalog.client`` and httpx alone, so that it knows nothing of how the service works.
"""

from catalog.conformance.report import Report
from catalog.conformance.rules import RULES
from catalog.conformance.run import check_conformance, rules_with

__all__ = ["RULES", "Report", "check_conformance", "rules_with"]
