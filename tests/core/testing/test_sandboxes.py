"""The sandboxes' suite finds a backend that claims an isolation it has not."""

from __future__ import annotations

import pytest

from envgym.env.run_sync import run_sync
from envgym.testing import IsolatedSandboxContract, SandboxContract
from envgym_sandboxes.unsafe_local import UnsafeLocalBackend


class Claims(UnsafeLocalBackend):
    isolated = True


def test_a_claim_of_isolation_needs_the_suite_that_tests_it() -> None:
    SandboxContract().test_an_isolating_backend_is_tested_for_isolation(UnsafeLocalBackend())
    with pytest.raises(AssertionError):
        SandboxContract().test_an_isolating_backend_is_tested_for_isolation(Claims())


@pytest.mark.parametrize("test", ["test_files_of_the_host_are_out_of_reach", "test_the_disk_is_limited"])
def test_a_false_claim_is_found(test: str) -> None:
    backend = Claims()
    sandbox = run_sync(backend.open(SandboxContract.limits))
    with pytest.raises(AssertionError):
        getattr(IsolatedSandboxContract(), test)(sandbox)
    run_sync(backend.close())
