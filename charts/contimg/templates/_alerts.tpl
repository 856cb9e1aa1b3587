{{/*
Alerts; docs/how-to/operate.md has a section of each name. What Argo's controllers tell of templates and sensors bears no namespace of ours
(Prometheus adds that of the controller): the names alone are ours.
*/}}
{{- define "contimg.alerts" -}}
{{- $here := printf "namespace=%q" .Release.Namespace -}}
{{- $sensor := printf "sensor_name=%q" (include "contimg.events.name" .) -}}
{{- $alerts := list
  (dict "alert" "ContimgWatchDown" "expr" (printf "absent(contimg_watch_last_success_timestamp_seconds{%s})" $here) "for" "10m" "severity" "critical"
    "summary" "watch does not run: no new group is found")
  (dict "alert" "ContimgStoreSilent" "expr" (printf "time() - contimg_watch_last_success_timestamp_seconds{%s} > 600" $here) "for" "5m" "severity" "critical"
    "summary" "watch has not been able to look at the store for ten minutes")
  (dict "alert" "ContimgPostsFail" "expr" (printf "contimg_watch_unposted{%s} > 0" $here) "for" "15m" "severity" "warning"
    "summary" "groups are found but their events cannot be posted; the sweep starts them late")
  (dict "alert" "ContimgDeadLetters" "expr" (printf "increase(argo_events_action_retries_failed_total{%s,trigger_name=\"process\"}[1h]) > 0" $sensor) "for" "0m" "severity" "warning"
    "summary" "the Sensor could not create a workflow")
  (dict "alert" "ContimgGroupWaits" "expr" (printf "contimg_watch_oldest_waiting_seconds{%s} > %d" $here (int .Values.monitoring.prometheusRule.waitingSeconds)) "for" "10m" "severity" "warning"
    "summary" "a group has been waiting for its subbands for too long")
  (dict "alert" "ContimgQuarantine" "expr" (printf "delta(contimg_watch_quarantined{%s}[1h]) > 0" $here) "for" "0m" "severity" "info"
    "summary" "files arrived that cannot be used")
  (dict "alert" "ContimgEarthOrientation" "expr" (printf "contimg_watch_earth_orientation_end_timestamp_seconds{%s} - time() < 180 * 86400" $here) "for" "1h" "severity" "warning"
    "summary" "the table of the Earth's orientation ends within half a year: groups observed later cannot be processed")
  (dict "alert" "ContimgTriesFail" "expr" "sum(increase(argo_workflows_contimg_stage_total{status!=\"Succeeded\"}[1h])) > 10 and sum(increase(argo_workflows_contimg_stage_total{status!=\"Succeeded\"}[1h])) > 0.3 * sum(increase(argo_workflows_contimg_stage_total[1h]))" "for" "0m" "severity" "warning"
    "summary" "a third of the stages' tries of the last hour failed")
  (dict "alert" "ContimgBadData" "expr" "sum(increase(argo_workflows_contimg_stage_total{exit=~\"1[0-9]\"}[1h])) > 3" "for" "0m" "severity" "warning"
    "summary" "several groups of the last hour could not be used")
  (dict "alert" "ContimgBroken" "expr" "sum(increase(argo_workflows_contimg_stage_total{exit=~\"2|70\"}[1h])) > 0" "for" "0m" "severity" "critical"
    "summary" "a stage ended with a wrong command line or a bug: nobody tries that again")
  (dict "alert" "ContimgNoRoom" "expr" "sum(argo_workflows_pods_gauge{phase=\"Pending\"}) > 0 unless sum(increase(argo_workflows_contimg_stage_total[30m])) > 0" "for" "30m" "severity" "warning"
    "summary" "pods of workflows wait for a node with room, and no stage ends")
  (dict "alert" "ContimgSlow" "expr" "histogram_quantile(0.5, sum by (le, stage) (rate(argo_workflows_contimg_stage_seconds_bucket{stage=\"image\"}[6h]))) > 600" "for" "1h" "severity" "info"
    "summary" "imaging takes longer than two groups do")
-}}
groups:
  - name: contimg
    rules:
      {{- $labels := .Values.monitoring.prometheusRule.alertLabels }}
      {{- range $alerts }}
      - alert: {{ .alert }}
        expr: {{ .expr | quote }}
        for: {{ .for }}
        labels: {{- merge (dict "severity" .severity) $labels | toYaml | nindent 10 }}
        annotations:
          summary: {{ .summary | quote }}
          runbook: docs/how-to/operate.md#{{ lower .alert }}
      {{- end }}
{{- end }}
