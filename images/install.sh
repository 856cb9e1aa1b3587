#!/bin/sh
# Installs into the virtual environment /app, and leaves what is new in /new, so that it becomes a layer of its own.
#   install.sh locked FOLDER…   what these projects of ours need, as requirements.lock has it
#   install.sh own WHEEL…       our own wheels
#   install.sh tools NAME…      what builds them, into /tools
set -eu
what=$1
shift
export UV_CACHE_DIR=/cache UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# uv does not read pip's settings.
UV_DEFAULT_INDEX=${INDEX:-$(/tools/bin/pip config get global.index-url 2>/dev/null || true)}
export UV_DEFAULT_INDEX
uv=/tools/bin/uv

# locked PYTHON: installs there what /asked.txt needs.
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

# What is never used, by size. Nothing else is cut: the rest of a wheel stays as its makers packed it.
cd "$packages"
drop() { for path in "$@"; do [ ! -e "$path" ] || rm -rf "$path"; done; }
find . -type d -name tests -not -path './astropy/tests' -prune -exec rm -rf {} + # astropy imports its own
drop pyarrow/include pyarrow/*flight* pyarrow/*s3fs* pyarrow/libarrow_s3* /app/.lock # boto3 talks to S3
drop casacore/data                                              # measures are CASA's affair: contimg.astro.measures
for service in botocore/data/*/; do
  case $service in */s3/ | */sts/ | */sso/ | */sso-oidc/ | */signin/) ;; *) rm -rf "$service" ;; esac
done
find . -type f \( -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.a' \) -delete # to compile against
# Symbols that only a debugger reads: 500 MB, most of them casatools'.
find . -name '*.so*' -type f -size +500k -cnewer /since -print0 | xargs -0 -r python3 /src/images/strip.py

# A read-only root cannot keep bytecode later; its dates say nothing in an image.
find /app -name '*.py' -cnewer /since | /app/bin/python -m compileall -qq -i - --invalidation-mode unchecked-hash || true

# As links: the same bytes.
find /app \( -type f -o -type l \) -cnewer /since -not -path '*/casadata/__data__/*' -print0 |
  xargs -0 cp --link --no-dereference --parents --target-directory=/new
