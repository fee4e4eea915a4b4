#!/bin/sh
# Makes the namespace and the search attributes of tasks, and waits until they can be used. Safe to repeat.
set -eu

tries=0
until temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
  temporal operator namespace create --retention 168h --namespace "$TEMPORAL_NAMESPACE"; do
  tries=$((tries + 1))
  if [ "$tries" -ge 30 ]; then
    echo "the namespace $TEMPORAL_NAMESPACE could not be made" >&2
    exit 1
  fi
  sleep 2
done

# A new namespace is known everywhere only after a moment.
tries=0
until known=$(temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE"); do
  tries=$((tries + 1))
  if [ "$tries" -ge 30 ]; then exit 1; fi
  sleep 1
done

for attribute in WeirTenant=Keyword WeirUser=Keyword WeirSession=Keyword WeirPriority=Keyword WeirStrategy=Keyword \
  WeirStatus=Keyword WeirCostUsd=Double WeirTokens=Int; do
  name=${attribute%=*}
  case $known in *"$name"*) continue ;; esac
  temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --name "$name" --type "${attribute#*=}"
done

# The frontend reads new attributes a moment later; a task that used one before would be refused.
tries=0
until temporal workflow count --namespace "$TEMPORAL_NAMESPACE" --query 'WeirTenant = "none" AND WeirTokens = 0' >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -ge 60 ]; then
    echo "the search attributes did not become usable" >&2
    exit 1
  fi
  sleep 1
done
echo "namespace $TEMPORAL_NAMESPACE is ready"
