#!/usr/bin/env bash
# highspy 1.16.0 writes a banner to standard output when a solver object is created, before any option can be set, so
# `output_flag = False` does not prevent it; 1.15.1 writes nothing. A program that prints JSON on standard output gets two
# lines in front of it.
#
# Seen: 1.15.1 prints nothing; 1.16.0 prints "Running HiGHS 1.16.0 …" and "Includes third-party software components …".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for version in 1.15.1 1.16.0; do
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check "highspy==$version"
  "$work/venv/bin/python" -c 'import highspy; solver = highspy.Highs(); solver.setOptionValue("output_flag", False)' >"$work/$version"
  echo "highspy $version: $(wc -l <"$work/$version") lines on standard output"
done
[ ! -s "$work/1.15.1" ] || { echo "changed: 1.15.1 prints"; exit 1; }
grep -q "^Running HiGHS 1.16.0" "$work/1.16.0" || { echo "changed: 1.16.0 prints no banner"; exit 1; }
