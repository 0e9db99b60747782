#!/usr/bin/env bash
# The last step of the first start: see start.sh.
rm -f /var/lib/mysql/.first-start
