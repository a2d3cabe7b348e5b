"""The bundled digits and their flow."""

import pytest

import fewstep as fs


@pytest.fixture(scope="module")
def digits():
    return fs.data.digits()[0]


@pytest.fixture(scope="module")
def flow():
    return fs.models.bundled("digits")
