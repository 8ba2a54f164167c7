"""Factors on channels: where a channel may be scaled if the weights around it undo it, and how it is done."""
