# Two stages: the second one takes the finished environment and nothing that was only needed to build it.
FROM python:3.11.15-slim-trixie AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/asyncproc
COPY pyproject.toml constraints.txt README.md LICENSE serve_app.py ./
COPY asyncproc ./asyncproc
# Byte-compiled once here: otherwise every Ray process of every container would compile Ray anew.
RUN /opt/asyncproc/bin/pip install --no-compile -c constraints.txt . \
    && /opt/asyncproc/bin/python -m compileall -q -j 0 /opt/asyncproc


FROM python:3.11.15-slim-trixie

RUN useradd --create-home --uid 10001 asyncproc \
    && install --directory --owner=asyncproc --group=asyncproc /app
COPY --from=build /opt/asyncproc /opt/asyncproc
# Login shells, which KubeRay starts Ray from, set a PATH of their own.
RUN ln -s /opt/asyncproc/bin/ray /opt/asyncproc/bin/serve /opt/asyncproc/bin/asyncproc /usr/local/bin/
# The dashboard and the API listen for whoever runs the container to publish; docker-compose.yml does so to loopback.
ENV PATH=/opt/asyncproc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token \
    ASYNCPROC_API_LISTEN_ADDR=0.0.0.0:8080 \
    ASYNCPROC_RAY_DASHBOARD_HOST=0.0.0.0 \
    ASYNCPROC_RAY_PUBLIC_DASHBOARD=true

# The directory of the start: asyncproc.yaml, if there is one, and the task modules. Copy your own package here too.
WORKDIR /app
COPY asyncproc*.yaml ./
COPY examples ./examples

USER 10001
EXPOSE 8080 8265
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s --retries=3 CMD ["asyncproc", "status"]
# Postgres is named by ASYNCPROC_STORAGE_URL, or by ASYNCPROC_STORAGE_HOST, _USER, _DBNAME and _PASSWORD.
CMD ["asyncproc", "up"]
