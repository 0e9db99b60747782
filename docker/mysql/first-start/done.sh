#!/usr/bin/env bash
# Last step of the first start; see start.sh.
rm -f /var/lib/mysql/.first-start
