"""For tests of scripts: the script that a test module names in `FILE`, as a module."""

import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def script(request):
    name = f"{request.module.FILE.stem}_script"
    spec = importlib.util.spec_from_file_location(name, request.module.FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
