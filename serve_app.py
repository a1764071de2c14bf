"""`serve run serve_app:app` runs the API on the Ray that is there; Postgres is named by the configuration.

KubeRay takes `asyncproc.serving:for_cluster` instead (deploy/kuberay.yaml).
"""

from asyncproc.serving import configured

app = configured()
