# The server: `rescind serve`. Built from the requirements that `tools/requirements` exports with hashes.
FROM python:3.13-slim AS build
COPY requirements.txt /build/
RUN python -m venv /opt/rescind && /opt/rescind/bin/pip install --no-cache-dir --require-hashes -r /build/requirements.txt
COPY . /build/source
RUN /opt/rescind/bin/pip install --no-cache-dir --no-deps /build/source/sdk /build/source

FROM python:3.13-slim
RUN useradd --system --no-create-home --uid 10001 rescind
COPY --from=build /opt/rescind /opt/rescind
ENV PATH=/opt/rescind/bin:$PATH RESCIND_HTTP_HOST=0.0.0.0
USER 10001
EXPOSE 8016
HEALTHCHECK --interval=5s --timeout=2s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8016/healthz', timeout=2)"]
ENTRYPOINT ["rescind"]
CMD ["serve", "--roles", "flags,sagas"]
