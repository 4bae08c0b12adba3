#!/bin/sh
# Makes .venv with prefloop, its extras and the pinned versions. Called by `make setup`; may be interrupted and run again.
#
#   PYTHON     the interpreter to build on; by default the first that is 3.11 or newer
#   TORCH      cpu | default | what `pip install` takes; by default what was chosen before, else cpu on a Linux machine
#              without an NVIDIA GPU (the default build for Linux brings several gigabytes of CUDA), else default
#   CPU_INDEX  where PyTorch publishes its CPU builds; asked only when the configured package indexes have none
set -eu
cd "$(dirname "$0")"

venv=.venv
python=$venv/bin/python
cpu_index=${CPU_INDEX:-https://download.pytorch.org/whl/cpu}
torch_version=$(sed -n 's/^torch==//p' constraints.txt)

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

which_python() { "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
pip() { "$python" -m pip "$@"; }

find_python() {
    for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

why_rebuild() { # prints why the .venv that is there cannot be kept; nothing where it can
    if ! is_new_enough "$python"; then
        echo "its Python is gone, or older than 3.11"
    elif [ -n "${PYTHON:-}" ] && [ "$(which_python "$python")" != "$(which_python "$PYTHON")" ]; then
        echo "it is not of $PYTHON"
    elif ! grep -qF "$(pwd -P)/$venv" $venv/bin/activate 2>/dev/null; then
        echo "it was made in another folder"
    elif ! pip --version >/dev/null 2>&1 && ! "$python" -m ensurepip >/dev/null 2>&1; then
        echo "it has no pip"
    fi
}

make_venv() {
    if [ -e $venv ]; then
        reason=$(why_rebuild)
        [ -n "$reason" ] || return 0
        say "making $venv anew: $reason"
    fi
    interpreter=${PYTHON:-$(find_python)}
    [ -n "$interpreter" ] || fail "prefloop needs Python 3.11 or newer, and none is on the PATH" "make setup PYTHON=/path/to/python3.11"
    is_new_enough "$interpreter" || fail "$interpreter does not run, or is older than Python 3.11" "make setup PYTHON=/path/to/python3.11"
    say "making $venv with $("$interpreter" --version)"
    "$interpreter" -m venv --clear $venv ||
        fail "$interpreter could not make $venv" "on Debian and Ubuntu its venv module is a package of its own: apt-get install python3-venv"
}

has_nvidia_gpu() { [ -e /dev/nvidia0 ] || nvidia-smi -L 2>/dev/null | grep -q GPU; }

torch_choice() {
    if [ -n "${TORCH:-}" ]; then
        echo "$TORCH"
    elif [ -s $venv/.torch ]; then
        cat $venv/.torch
    elif [ "$(uname -s)" = Linux ] && ! has_nvidia_gpu; then
        echo cpu
    else
        echo default
    fi
}

installed_torch() { "$python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null; }

install_torch() {
    case $1 in
    cpu) install_cpu_torch ;;
    default) install_default_torch ;;
    *) pip install $1 ;; # several words: a requirement and where to find it
    esac
}

install_cpu_torch() {
    if [ "$(uname -s)" != Linux ]; then # elsewhere the default build is the CPU build
        install_default_torch
        return
    fi
    once="--retries 1 --timeout 10" # an index that does not answer is passed over
    say "looking for the CPU build of torch $torch_version"
    pip install $once --no-deps "torch==$torch_version+cpu" 2>/dev/null && return
    say "none in the configured package indexes; asking $cpu_index"
    pip install $once --no-deps --index-url "$cpu_index" "torch==$torch_version+cpu" 2>/dev/null && return
    say "no CPU build can be had here: taking the default build, which may bring several gigabytes of CUDA"
    install_default_torch
}

install_default_torch() {
    case $(installed_torch) in
    *+cpu) pip install --force-reinstall --no-deps "torch==$torch_version" && pip install "torch==$torch_version" ;;
    *) pip install "torch==$torch_version" ;;
    esac
}

no_packages() {
    fail "pip could not install $1; its own message is above" \
        "without a network or a package index this cannot go on: check 'pip config list' and the proxy settings" \
        "nothing is half done: mend it and run the same command again"
}

choice=$(torch_choice) # before .venv, which remembers it, may be made anew
rm -f $venv/.ready
make_venv
install_torch "$choice" || no_packages torch
echo "$choice" >$venv/.torch

# torch stays the build chosen above, whatever else is installed.
{
    grep -v '^torch==' constraints.txt
    echo "torch==$(installed_torch)"
} >$venv/constraints.txt
say "installing prefloop and what it needs"
quiet=--quiet
[ ! -t 1 ] || quiet= # on a terminal pip shows how far it is
pip install $quiet -c $venv/constraints.txt -e '.[train,report,test]' || no_packages "prefloop and what it needs"
pwd -P >$venv/.ready
