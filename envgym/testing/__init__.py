"""Contract tests for plugins, to be inherited by the tests of whoever writes one."""
