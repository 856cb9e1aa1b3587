{{/*
The rendered documents come in by .Files.Get | fromYaml, get what only this installation knows, and leave by toYaml.
They never pass through tpl: Argo's braces are not ours. Each helper here changes the dict that it is given and writes nothing.
*/}}

{{/* A whole document; (dict "root" $ "document" DICT). */}}
{{- define "contimg.merge" -}}
{{- $metadata := .document.metadata -}}
{{- $ours := include "contimg.labels" (dict "root" .root "component" (trimPrefix "contimg-" $metadata.name)) | fromYaml -}}
{{- $_ := set $metadata "labels" (merge (dict) $ours ($metadata.labels | default dict)) -}}
{{- if eq .document.kind "WorkflowTemplate" -}}
{{- include "contimg.merge.spec" (dict "root" .root "spec" .document.spec "name" $metadata.name) -}}
{{- else if eq .document.kind "CronWorkflow" -}}
{{- include "contimg.merge.cron" . -}}
{{- else -}}
{{- fail (printf "%s: the chart knows no %s" $metadata.name .document.kind) -}}
{{- end -}}
{{- end }}

{{/* The spec of a WorkflowTemplate: what holds for the workflow as a whole. */}}
{{- define "contimg.merge.spec" -}}
{{- $root := .root -}}{{- $spec := .spec -}}
{{- $pods := $root.Values.pods -}}
{{- $_ := set $spec "serviceAccountName" $root.Values.serviceAccounts.names.workflow -}}
{{- $_ := set $spec "artifactRepositoryRef" (dict "configMap" "contimg-artifacts" "key" "s3") -}}
{{- $metadata := $spec.podMetadata | default dict -}}
{{- $labels := omit (include "contimg.selector" (dict "root" $root "component" "workflow") | fromYaml) "app.kubernetes.io/component" -}}
{{- $_ := set $metadata "labels" (merge (dict) $labels ($metadata.labels | default dict) $pods.labels) -}}
{{- with $pods.annotations }}{{ $_ := set $metadata "annotations" (merge (dict) ($metadata.annotations | default dict) .) }}{{ end -}}
{{- $_ := set $spec "podMetadata" $metadata -}}
{{- range $key, $value := include "contimg.placement" $root | fromYaml }}{{ $_ := set $spec $key $value }}{{ end -}}
{{- with $pods.priorityClassName }}{{ $_ := set $spec "podPriorityClassName" . }}{{ end -}}
{{- if $root.Values.workflows.podDisruptionBudget }}{{ $_ := set $spec "podDisruptionBudget" (dict "maxUnavailable" 0) }}{{ end -}}
{{- include "contimg.merge.parameters" . -}}
{{- range $spec.templates }}{{ include "contimg.merge.template" (dict "root" $root "template" .) }}{{ end -}}
{{- end }}

{{/* A CronWorkflow: when it runs. */}}
{{- define "contimg.merge.cron" -}}
{{- $switch := get .root.Values (trimPrefix "contimg-" .document.metadata.name) -}}
{{- $_ := set .document.spec "schedules" $switch.schedules -}}
{{- include "contimg.merge.parameters" (dict "root" .root "spec" .document.spec.workflowSpec "name" .document.metadata.name) -}}
{{- end }}

{{/* The parameters of a spec's form: the places of this installation, and the operator's own defaults. */}}
{{- define "contimg.merge.parameters" -}}
{{- $values := .root.Values -}}
{{- $given := dict "store" (include "contimg.store" .root) "post" (include "contimg.events.url" .root) -}}
{{- with $values.options }}{{ $given = merge $given (dict "options" (toJson .)) }}{{ end -}}
{{- if eq .name "contimg-sweep" }}{{ $given = merge $given (dict "grace_s" $values.sweep.graceSeconds "retries" $values.sweep.retries "days" $values.sweep.days) }}{{ end -}}
{{- if eq .name "contimg-nightly" }}{{ $given = merge $given (dict "days" $values.nightly.days) }}{{ end -}}
{{- $given = mergeOverwrite $given $values.parameters -}}
{{- range (.spec.arguments | default dict).parameters -}}
{{- if hasKey $given .name -}}
{{- $word := include "contimg.word" (get $given .name) -}}
{{- if and .enum (not (has $word .enum)) (hasKey $values.parameters .name) }}{{ fail (printf "parameters.%s: %q is not one of %s" .name $word (join ", " .enum)) }}{{ end -}}
{{- $_ := set . "value" $word -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A value as a word; helm reads a whole number as a float, whose own word may be 1e+06. */}}
{{- define "contimg.word" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* Parameters as words, in JSON. */}}
{{- define "contimg.words" -}}
{{- $words := dict -}}
{{- range $name, $value := . }}{{ $_ := set $words $name (include "contimg.word" $value) }}{{ end -}}
{{- toJson $words -}}
{{- end }}

{{/* One template: its containers, its artifacts, and the account of those that talk to the Kubernetes API. */}}
{{- define "contimg.merge.template" -}}
{{- $root := .root -}}{{- $template := .template -}}
{{- $names := $root.Values.serviceAccounts.names -}}
{{- with $template.container -}}
{{- include "contimg.merge.container" (dict "root" $root "container" . "stage" (include "contimg.stage.of" .)) -}}
{{- include "contimg.merge.memory" (dict "template" $template) -}}
{{- if or (has "record" .command) (has "sweep" .command) }}{{ $_ := set $template "serviceAccountName" $names.control }}{{ end -}}
{{- with include "contimg.volumes" $root | fromYamlArray }}{{ $_ := set $template "volumes" (concat ($template.volumes | default list) .) }}{{ end -}}
{{- end -}}
{{- if hasKey $template "resource" }}{{ $_ := set $template "serviceAccountName" $names.spawn }}{{ end -}}
{{- range ($template.outputs | default dict).artifacts -}}
{{- with .s3 }}{{ $_ := set . "key" (printf "%s%s" (include "contimg.prefix" $root) .key) }}{{ end -}}
{{- end -}}
{{- end }}

{{/* After a lack of memory the next try gets more: the ramp begins at the container's own limit. */}}
{{- define "contimg.merge.memory" -}}
{{- $limit := (((.template.container).resources).limits).memory -}}
{{- if and .template.podSpecPatch $limit -}}
{{- $mebibytes := ternary (mul 1024 (trimSuffix "Gi" $limit | int)) (trimSuffix "Mi" $limit | int) (hasSuffix "Gi" $limit) -}}
{{- $_ := set .template "podSpecPatch" (regexReplaceAll "\\{\\{=[0-9]+ \\*" .template.podSpecPatch (printf "{{=%d *" (int $mebibytes))) -}}
{{- end -}}
{{- end }}

{{/* One container of a stage. */}}
{{- define "contimg.merge.container" -}}
{{- $container := .container -}}{{- $values := .root.Values -}}
{{- $_ := set $container "image" (include "contimg.image" (dict "root" .root "stage" .stage)) -}}
{{- $_ := set $container "imagePullPolicy" $values.images.pullPolicy -}}
{{- with (get $values.stages .stage | default dict).resources }}{{ $_ := set $container "resources" (mergeOverwrite (deepCopy ($container.resources | default dict)) .) }}{{ end -}}
{{- $env := $container.env | default list -}}
{{- $known := dict -}}
{{- range $env }}{{ $_ := set $known .name true }}{{ end -}}
{{- range include "contimg.env" .root | fromYamlArray }}{{ if not (hasKey $known .name) }}{{ $env = append $env . }}{{ end }}{{ end -}}
{{- if has "--profile={{inputs.parameters.profile}}" $container.args -}}
{{- $env = append $env (dict "name" "CONTIMG_PROFILES" "valueFrom" (dict "configMapKeyRef" (dict "name" "contimg-profiles" "key" "profiles"))) -}}
{{- end -}}
{{- $_ := set $container "env" $env -}}
{{- $mounts := include "contimg.mounts" .root | fromYamlArray -}}
{{- with $mounts }}{{ $_ := set $container "volumeMounts" (concat ($container.volumeMounts | default list) .) }}{{ end -}}
{{- end }}

{{/* The stage of a container's image. */}}
{{- define "contimg.stage.of" -}}
{{- regexFind "contimg-[-a-z0-9]+" .image | trimPrefix "contimg-" -}}
{{- end }}

{{/* The rendered stages, each with its options: {stage: {option: true}}; and all images: {image: true}. */}}
{{- define "contimg.known" -}}
{{- $stages := dict -}}{{- $images := dict -}}
{{- range $path, $_ := .Files.Glob "rendered/*.yaml" -}}
{{- $document := $.Files.Get $path | fromYaml -}}
{{- range (($document.spec).templates) -}}{{- with .container -}}
{{- $stage := include "contimg.stage.of" . -}}
{{- $_ := set $images $stage true -}}
{{- if has "--config={{inputs.parameters.config}}" .args -}}
{{- $options := dict -}}
{{- range $document.spec.arguments.parameters }}{{ $_ := set $options .name true }}{{ end -}}
{{- $_ := set $stages $stage $options -}}
{{- end -}}
{{- end -}}{{- end -}}
{{- end -}}
{{- toJson (dict "stages" $stages "images" $images) -}}
{{- end }}

{{/* Refuse names of stages and options that no rendered template has. */}}
{{- define "contimg.checks.stages" -}}
{{- $known := include "contimg.known" . | fromJson -}}
{{- range $stage, $_ := .Values.stages -}}
{{- if not (hasKey $known.images $stage) -}}
{{- fail (printf "stages.%s: there is no stage of this name; there are %s" $stage (keys $known.images | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- include "contimg.checks.options" (dict "stages" $known.stages "where" "options" "options" .Values.options) -}}
{{- range $name, $options := .Values.profiles -}}
{{- include "contimg.checks.options" (dict "stages" $known.stages "where" (printf "profiles.%s" $name) "options" $options) -}}
{{- end -}}
{{- end }}

{{- define "contimg.checks.options" -}}
{{- range $stage, $options := .options -}}
{{- if not (hasKey $.stages $stage) -}}
{{- fail (printf "%s.%s: there is no stage of this name; there are %s" $.where $stage (keys $.stages | sortAlpha | join ", ")) -}}
{{- end -}}
{{- range $option, $_ := $options -}}
{{- if not (hasKey (get $.stages $stage) (replace "-" "_" $option)) -}}
{{- fail (printf "%s.%s.%s: contimg-%s has no option of this name" $.where $stage $option $stage) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
