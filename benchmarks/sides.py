"""Names of what is timed."""

GUERDON = "guerdon"
FIRST = "guerdon, first epoch"  # DPO or KTO that still asks the reference
NARROW = "guerdon, bfloat16 rollouts"
PLAIN = "guerdon, system allocator"
TRL = "trl"
SAME = "trl, same allocator"
EARLY = "trl, same allocator, reference precomputed"
