"""What a filter lets through, in lists, counts and operations alike: one grammar, one text."""

from typing import Final, LiteralString

_SHARED: Final[LiteralString] = """
    (%(state)s::text[] IS NULL OR state = ANY(%(state)s::text[]))
    AND (%(type)s::text[] IS NULL OR type = ANY(%(type)s::text[]))
    AND (%(queue)s::text[] IS NULL OR queue = ANY(%(queue)s::text[]))
    AND (%(priority)s::int[] IS NULL OR priority = ANY(%(priority)s::int[]))
    AND (%(created_by)s::text[] IS NULL OR created_by = ANY(%(created_by)s::text[]))
    AND (%(created_after)s::float8 IS NULL OR created_at >= to_timestamp(%(created_after)s::float8))
    AND (%(created_before)s::float8 IS NULL OR created_at < to_timestamp(%(created_before)s::float8))
    AND (%(concurrency_key)s::text[] IS NULL OR concurrency_key = ANY(%(concurrency_key)s::text[]))
    AND (%(fairness_key)s::text[] IS NULL OR fairness_key = ANY(%(fairness_key)s::text[]))
    AND (%(id)s::uuid[] IS NULL OR id = ANY(%(id)s::uuid[]))
    AND (%(payload)s::jsonb IS NULL OR asyncproc.payload_contains(payload, %(payload)s::jsonb))
"""
# Of what has not failed there is no fingerprint.
LIVE: Final[LiteralString] = f"{_SHARED} AND %(fingerprint)s::text[] IS NULL"
# What failed under a release that wrote no fingerprint is reckoned anew each time.
# What ended before it was made is in no partition: those from before need not be looked into.
DONE: Final[LiteralString] = f"""{_SHARED}
    AND (
        %(fingerprint)s::text[] IS NULL OR fingerprint = ANY(%(fingerprint)s::text[])
        OR state = 'failed' AND fingerprint IS NULL
            AND asyncproc.fingerprint(type, error) = ANY(%(fingerprint)s::text[])
    )
    AND (%(created_after)s::float8 IS NULL OR finished_at >= to_timestamp(%(created_after)s::float8))
"""
