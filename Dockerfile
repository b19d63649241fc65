# Two images from one file: `api` (API, scheduler, migrations; no torch) and `worker` (with torch and diffusers).
#   docker build --target api -t imagefarm-api . && docker build --target worker -t imagefarm-worker .

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/imagefarm
ENV PATH=/opt/imagefarm/bin:$PATH
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE constraints.txt ./
COPY packages packages
COPY models.toml models.toml
COPY models models
COPY examples examples

FROM build AS build-api
COPY imagefarm imagefarm
COPY api api
COPY scheduler scheduler
COPY worker worker
COPY migrations migrations
RUN pip install -c constraints.txt ./packages/client '.[postgres,bucket]'

FROM build AS build-worker
# the CUDA build by default; for CPUs: --build-arg PIP_TORCH="torch==2.13.0 --index-url ..."
ARG PIP_TORCH="torch==2.13.0"
RUN pip install ${PIP_TORCH}
COPY imagefarm imagefarm
COPY api api
COPY scheduler scheduler
COPY worker worker
COPY migrations migrations
RUN pip install -c constraints.txt ./packages/client '.[worker,int8,postgres,bucket]' && pip install --no-deps spandrel==0.4.2

FROM python:3.12-slim AS runtime
# /data is scratch of one container, /outputs the pictures that all share, /models the hub's cache
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin farm \
    && install -d -o farm -g farm -m 0750 /data /outputs /models
ENV PATH=/opt/imagefarm/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    IMAGEFARM_DATA_DIR=/data IMAGEFARM_OUTPUTS_DIR=/outputs \
    IMAGEFARM_HOST=0.0.0.0 IMAGEFARM_LOG_FORMAT=json HF_HOME=/models
WORKDIR /app
USER 10001

FROM runtime AS api
COPY --from=build-api /opt/imagefarm /opt/imagefarm
EXPOSE 8000
CMD ["imagefarm", "api"]

FROM runtime AS worker
COPY --from=build-worker /opt/imagefarm /opt/imagefarm
CMD ["imagefarm", "worker"]
