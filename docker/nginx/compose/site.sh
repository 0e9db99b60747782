#!/bin/sh
# Prints catalog/site.conf for the service's variables.
set -eu

# One a line, each once: nginx refuses a repeated one.
origins=$(printf '%s' "${CATALOG_CORS_ORIGINS:-}" | tr -s ', ' '[\n*]' | sort -u)
# The service refuses other characters with a reason; nginx might read them as directives.
if [ "$origins" != '*' ] && printf '%s' "$origins" | grep -q '[^]a-z0-9:/.+_[-]'; then
  echo "site.sh: CATALOG_CORS_ORIGINS is not a list of origins such as https://app.example.com" >&2
  exit 1
fi

root_path=${CATALOG_ROOT_PATH:-}
if ! printf '%s\n' "$root_path" | grep -Eqx '(/[A-Za-z0-9._~-]+)*'; then
  echo "site.sh: CATALOG_ROOT_PATH is not a path such as /shop, without a slash at the end" >&2
  exit 1
fi

# shellcheck disable=SC2016  # The variables are nginx's.
echo 'map $http_origin $catalog_admitted_origin {'
if [ "$origins" = '*' ]; then
  echo '    default "*";'
else
  echo '    default "";'
  printf '%s\n' "$origins" | sed -n 's/^..*$/    "&" "&";/p'
fi
echo '}'
# shellcheck disable=SC2016
printf 'map "" $catalog_root_path {\n    default "%s";\n}\n' "$root_path"
