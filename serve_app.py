"""`serve run serve_app:app` runs the API on the Ray that is there; Postgres is named by the configuration."""

from asyncproc.serving import configured

app = configured()
