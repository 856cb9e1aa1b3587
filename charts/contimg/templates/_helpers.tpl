{{/* Labels that every object has; (dict "root" $ "component" NAME). */}}
{{- define "contimg.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "contimg.selector" . }}
{{- end }}

{{/* Labels that pods are found by. */}}
{{- define "contimg.selector" -}}
app.kubernetes.io/name: contimg
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: contimg
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The store's root without a slash at its end. */}}
{{- define "contimg.store" -}}
{{- required "store.uri is empty: say where subbands arrive and results go, such as --set store.uri=s3://bucket/prefix" .Values.store.uri | trimSuffix "/" -}}
{{- end }}

{{/* Bucket of the store, and what comes before each key in it: empty, or with a slash at its end. */}}
{{- define "contimg.bucket" -}}
{{- include "contimg.store" . | trimPrefix "s3://" | splitList "/" | first -}}
{{- end }}
{{- define "contimg.prefix" -}}
{{- $parts := include "contimg.store" . | trimPrefix "s3://" | splitList "/" | rest -}}
{{- with $parts }}{{ join "/" . }}/{{ end -}}
{{- end }}

{{/* Image of a stage; (dict "root" $ "stage" NAME). */}}
{{- define "contimg.image" -}}
{{- $images := .root.Values.images -}}
{{- $image := (get .root.Values.stages .stage | default dict).image | default dict -}}
{{- $name := $image.repository | default (printf "contimg-%s" .stage) -}}
{{- with $image.registry | default $images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{- $tag := $image.tag | default $images.tag | default .root.Chart.AppVersion -}}
{{- if not (regexMatch (printf "^%s($|[-_])" (replace "." "\\." .root.Chart.AppVersion)) $tag) -}}
{{- $value := ternary (printf "stages.%s.image.tag" .stage) "images.tag" (not (empty $image.tag)) -}}
{{- fail (printf "%s is %s, but this chart's templates are made for version %s: take an image %s (or %s-…), or the chart of the image's version" $value $tag .root.Chart.AppVersion .root.Chart.AppVersion .root.Chart.AppVersion) -}}
{{- end -}}
{{ $name }}:{{ $tag }}
{{- end -}}
{{- end }}

{{/* Where posted groups go in. The EventSource's name differs between namespaces, whose buses may share a stream. */}}
{{- define "contimg.events.name" -}}
{{- $name := printf "contimg-%s" .Release.Namespace -}}
{{- if gt (len $name) 40 }}{{ printf "%s-%s" ($name | trunc 31) (sha256sum $name | trunc 8) }}{{ else }}{{ $name }}{{ end -}}
{{- end }}
{{- define "contimg.events.url" -}}
{{- if .Values.events.enabled -}}
http://{{ include "contimg.events.name" . }}-eventsource-svc.{{ .Release.Namespace }}.svc:12000/group
{{- end -}}
{{- end }}

{{/* Variables by which a program reaches the store, as a YAML list. */}}
{{- define "contimg.env" -}}
{{- with .Values.s3 -}}
- {name: AWS_REGION, value: {{ .region | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ .region | quote }}}
{{- with .endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }}}
{{- end }}
{{- if .existingSecret }}
- {name: AWS_ACCESS_KEY_ID, valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .secretKeys.accessKeyId }}}}}
- {name: AWS_SECRET_ACCESS_KEY, valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .secretKeys.secretAccessKey }}}}}
{{- with .secretKeys.sessionToken }}
- {name: AWS_SESSION_TOKEN, valueFrom: {secretKeyRef: {name: {{ $.Values.s3.existingSecret }}, key: {{ . }}}}}
{{- end }}
{{- end }}
{{- if .ca.existingSecret }}
- {name: AWS_CA_BUNDLE, value: /etc/contimg-ca/{{ .ca.key }}}
{{- end }}
{{- end }}
- {name: CONTIMG_TEMPLATE_VERSION, value: {{ .Chart.AppVersion | quote }}}
{{- end }}

{{/* Volumes and mounts that go with it. */}}
{{- define "contimg.volumes" -}}
{{- with .Values.s3.ca -}}
{{- if .existingSecret -}}
- name: contimg-ca
  secret: {secretName: {{ .existingSecret }}, items: [{key: {{ .key }}, path: {{ .key }}}]}
{{- end }}
{{- end }}
{{- end }}
{{- define "contimg.mounts" -}}
{{- if .Values.s3.ca.existingSecret -}}
- {name: contimg-ca, mountPath: /etc/contimg-ca, readOnly: true}
{{- end }}
{{- end }}

{{/* Pod Security "restricted". */}}
{{- define "contimg.pod.security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "contimg.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods may run, and how their images are pulled. */}}
{{- define "contimg.placement" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.pods.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.pods.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .Values.pods.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end }}
