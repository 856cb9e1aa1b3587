{{/* What helm can see before anything is made. Each message says what to do. */}}
{{- define "contimg.checks" -}}
{{- include "contimg.store" . | trunc 0 -}}
{{- include "contimg.checks.stages" . -}}
{{- $bus := .Values.events.eventBus -}}
{{- if and .Values.events.enabled $bus.create (eq $bus.kind "exotic") (not $bus.exotic.url) -}}
{{- fail "events.eventBus.kind is exotic, but events.eventBus.exotic.url is empty: name the NATS server, such as nats://nats.nats.svc:4222, or take kind jetstream" -}}
{{- end -}}
{{- if and .Values.sweep.enabled (not .Values.events.enabled) -}}
{{- fail "sweep starts groups by an event, but events.enabled is false: set sweep.enabled=false, too" -}}
{{- end -}}
{{- /* Every namespace of a cluster has an account "default"; without a cluster (helm template) nothing is there. */ -}}
{{- if lookup "v1" "ServiceAccount" .Release.Namespace "default" -}}
{{- include "contimg.checks.apis" . -}}
{{- $s3 := .Values.s3 -}}
{{- if $s3.existingSecret -}}
{{- $keys := list $s3.secretKeys.accessKeyId $s3.secretKeys.secretAccessKey -}}
{{- with $s3.secretKeys.sessionToken }}{{ $keys = append $keys . }}{{ end -}}
{{- include "contimg.checks.secret" (dict "root" . "value" "s3.existingSecret" "name" $s3.existingSecret "keys" $keys) -}}
{{- end -}}
{{- if $s3.ca.existingSecret -}}
{{- include "contimg.checks.secret" (dict "root" . "value" "s3.ca.existingSecret" "name" $s3.ca.existingSecret "keys" (list $s3.ca.key)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "contimg.checks.apis" -}}
{{- if not (.Capabilities.APIVersions.Has "argoproj.io/v1alpha1/WorkflowTemplate") -}}
{{- fail "the cluster has no Argo Workflows (no CRD WorkflowTemplate): install it first" -}}
{{- end -}}
{{- if and .Values.events.enabled (not (.Capabilities.APIVersions.Has "argoproj.io/v1alpha1/Sensor")) -}}
{{- fail "the cluster has no Argo Events (no CRD Sensor): install it first, or set events.enabled=false and sweep.enabled=false" -}}
{{- end -}}
{{- end }}

{{- define "contimg.checks.secret" -}}
{{- $namespace := .root.Release.Namespace -}}
{{- $secret := lookup "v1" "Secret" $namespace .name -}}
{{- if not $secret -}}
{{- fail (printf "%s: there is no Secret %s in namespace %s: kubectl -n %s create secret generic %s %s" .value .name $namespace $namespace .name (include "contimg.checks.literals" .keys)) -}}
{{- end -}}
{{- range .keys -}}
{{- if not (hasKey ($secret.data | default dict) .) -}}
{{- fail (printf "%s: the Secret %s has no key %s, only %s" $.value $.name . (keys ($secret.data | default dict) | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "contimg.checks.literals" -}}
{{- $words := list -}}
{{- range . }}{{ $words = append $words (printf "--from-literal=%s=…" .) }}{{ end -}}
{{- join " " $words -}}
{{- end }}
