-- Requests that came with an idempotency key, and what they were answered. The row is written with the tasks of its
-- request. Nothing that was there before is touched: the release before works beside this one.

SET LOCAL lock_timeout = '5s';

CREATE TABLE asyncproc.idempotency_key (
    key text COLLATE "C" PRIMARY KEY,
    body_hash bytea NOT NULL,
    answer text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX idempotency_key_over ON asyncproc.idempotency_key (expires_at);
