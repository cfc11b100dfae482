#!/bin/sh
# Make .venv unless it is usable, and install locks into it, each package checked against its hash.
#
#   requirements/install.sh [--with-project] LOCK...
#
# PYTHON names the interpreter; without it the first suitable one is used. Interrupted, it continues when it runs again.
set -eu

VENV=.venv
OURS="$VENV/bin/python"
NEW_ENOUGH='import sys; sys.exit(sys.version_info < (3, 11))'
VERSION='import sys; print(sys.version, sys.base_prefix)'

fail() {
	echo "make: $1" >&2
	exit 1
}

# A name alone proves nothing: it may be a shim of a version that is not installed.
is_new_enough() {
	"$1" -c "$NEW_ENOUGH" >/dev/null 2>&1
}

choose_python() {
	if [ -n "${PYTHON:-}" ]; then
		is_new_enough "$PYTHON" || fail "$PYTHON is no Python 3.11 or newer"
		return
	fi
	for PYTHON in python3.13 python3.12 python3.11 python3; do
		if is_new_enough "$PYTHON"; then return; fi
	done
	fail "Python 3.11 or newer is needed and none was found; PYTHON=/path/to/python names one"
}

# False for an interrupted one (no pip), for one whose Python was removed, and for one of another Python than the chosen.
is_usable() {
	is_new_enough "$OURS" && "$OURS" -m pip --version >/dev/null 2>&1 || return 1
	[ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -c "$VERSION" 2>&1)" = "$("$OURS" -c "$VERSION")" ]
}

make_venv() {
	choose_python
	"$PYTHON" -c "import ensurepip, venv" 2>/dev/null || fail "$PYTHON cannot make virtual environments; install its venv package (Debian, Ubuntu: apt install python3-venv)"
	echo "setting up $VENV with $("$PYTHON" --version) (once)"
	"$PYTHON" -m venv --clear "$VENV"
}

# Modules are compiled when they are first imported: most of them never are.
install() {
	PYTHONUNBUFFERED=1 "$OURS" -m pip --disable-pip-version-check install --no-compile --progress-bar off "$@"
}

# pip has several lines for each package or, quiet, none for a minute: show the large packages and the last step. A pipe
# hides the failure of its first command, hence the word.
show_progress() {
	while read -r line; do
		case $line in
		*" MB)") echo "  ${line%%-[0-9]*} (${line##*\(}" ;;
		"Installing collected packages"*) echo "  Installing all" ;;
		failed) return 1 ;;
		esac
	done
}

project=
if [ "${1:-}" = --with-project ]; then
	project=yes
	shift
fi
is_usable || make_venv
echo "installing $* into $VENV (once)"
for lock; do
	set -- "$@" --requirement "requirements/$lock"
	shift
done
{ install --require-hashes "$@" || echo failed; } | show_progress
if [ -n "$project" ]; then
	install --quiet --no-deps --no-build-isolation --editable .
fi
