"""Samples: real rows from files, folders or a function, or synthetic ones, as feeds that a model takes."""

from zc.data.load import load_samples
from zc.data.prep import Prep, parse_prep
from zc.data.samples import Samples
from zc.data.source import Array, Feed
from zc.data.synthetic import synthesize

__all__ = ["Array", "Feed", "Prep", "Samples", "load_samples", "parse_prep", "synthesize"]
