#!/bin/sh
# Installs into the virtual environment /app, and links new files into /new, which becomes a layer.
#   install.sh locked FOLDER…   the dependencies of these packages of ours, as pinned in requirements.lock
#   install.sh own WHEEL…       our own packages, without dependencies
#   install.sh tools NAME…      build tools, into /tools
set -eu
what=$1
shift
export UV_CACHE_DIR=/cache UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# uv does not read the settings of pip.
UV_DEFAULT_INDEX=${INDEX:-$(/tools/bin/pip config get global.index-url 2>/dev/null || true)}
export UV_DEFAULT_INDEX
uv=/tools/bin/uv

# locked PYTHON: installs the dependencies in /asked.txt.
locked() {
  $uv pip compile --quiet --python "$1" --no-header --no-annotate --constraint requirements.lock /asked.txt >/needed.txt
  python3 images/requirements.py locked requirements.lock </needed.txt >/locked.txt
  $uv pip install --quiet --python "$1" --require-hashes --requirements /locked.txt
}

if [ "$what" = tools ]; then
  printf '%s\n' "$@" >/asked.txt
  locked /tools/bin/python
  exit
fi
rm -rf /new
mkdir /new
touch /since
[ -d /app ] || $uv venv --quiet --python /usr/bin/python3 /app
packages=$(/app/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ "$what" = own ]; then
  $uv pip install --quiet --python /app/bin/python --offline --no-deps "$@"
else
  python3 images/requirements.py direct "$@" >/asked.txt
  locked /app/bin/python
fi

# Remove large files that are never used. The rest of each wheel stays as it is.
cd "$packages"
drop() { for path in "$@"; do [ ! -e "$path" ] || rm -rf "$path"; done; }
find . -type d -name tests -not -path './astropy/tests' -prune -exec rm -rf {} + # astropy imports its own
drop pyarrow/include pyarrow/*flight* pyarrow/*s3fs* pyarrow/libarrow_s3* /app/.lock # boto3 talks to S3
drop casacore/data                                              # contimg.astro.measures makes CASA's measures
for service in botocore/data/*/; do
  case $service in */s3/ | */sts/ | */sso/ | */sso-oidc/ | */signin/) ;; *) rm -rf "$service" ;; esac
done
find . -type f \( -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.a' \) -delete # to compile against
# Debug symbols: 500 MB, most of them in casatools.
find . -name '*.so*' -type f -size +500k -cnewer /since -print0 | xargs -0 -r python3 /src/images/strip.py

# A read-only root cannot store bytecode later, and file dates mean nothing in an image.
find /app -name '*.py' -cnewer /since | /app/bin/python -m compileall -qq -i - --invalidation-mode unchecked-hash || true

# Hard links: they take no space.
find /app \( -type f -o -type l \) -cnewer /since -not -path '*/casadata/__data__/*' -print0 |
  xargs -0 cp --link --no-dereference --parents --target-directory=/new
