{{/* Alerts. docs/operations.md says of each what it means and what to do. */}}
{{- define "marquee.rules" -}}
{{- $limits := .Values.monitoring.alerts -}}
groups:
  - name: marquee
    rules:
      - alert: MarqueeErrors
        expr: (sum(rate(marquee_requests_total{status=~"5.."}[5m])) or vector(0)) / sum(rate(marquee_requests_total[5m])) > {{ $limits.errorShare }}
        for: 5m
        labels: {severity: critical}
        annotations:
          summary: More than {{ mulf $limits.errorShare 100 }}% of requests fail.
      - alert: MarqueeSlow
        expr: histogram_quantile(0.99, sum by (le) (rate(marquee_request_seconds_bucket{route="/recommend"}[5m]))) > {{ $limits.p99S }}
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: P99 of /recommend is above {{ $limits.p99S }} s.
      - alert: MarqueeDegraded
        expr: sum by (dependency) (rate(marquee_degraded_total[5m])) / on () group_left () sum(rate(marquee_batch_size_count[5m])) > {{ $limits.degradedShare }}
        for: 5m
        labels: {severity: warning}
        annotations:
          summary: {{ "Answers do without {{ $labels.dependency }}." | quote }}
      - alert: MarqueeRedisDown
        expr: sum by (dependency) (rate(marquee_degraded_total{dependency=~"user_state|cache"}[2m])) / on () group_left () sum(rate(marquee_batch_size_count[2m])) > 0.5
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: {{ "The Redis for {{ $labels.dependency }} does not answer." | quote }}
      - alert: MarqueeQdrantDown
        expr: sum by (dependency) (rate(marquee_degraded_total{dependency="retrieve"}[2m])) / on () group_left () sum(rate(marquee_batch_size_count[2m])) > 0.5
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: The vector index does not answer; slates are those of popularity.
      - alert: MarqueeBreakerOpen
        expr: max by (dependency) (min_over_time(marquee_breaker_state[2m])) > 0 and on () sum(rate(marquee_requests_total[2m])) > 0
        for: 1m
        labels: {severity: warning}
        annotations:
          summary: {{ "A replica has not reached {{ $labels.dependency }} for 3 minutes." | quote }}
      - alert: MarqueeErasureFailed
        {{- $failed := `marquee_requests_total{route="/users/{user_id}",status=~"5.."}` }}
        {{- /* A series begins with its first failure, from which increase() knows nothing of it. */}}
        expr: (sum({{ $failed }} unless {{ $failed }} offset 1h) or vector(0)) + (sum(increase({{ $failed }}[1h])) or vector(0)) > 0
        for: 1m
        labels: {severity: critical}
        annotations:
          summary: The erasure of a user was not finished.
      - alert: MarqueeStoreNotReady
        expr: kube_statefulset_status_replicas_ready{statefulset=~"{{ include "marquee.fullname" . }}-(redis-.+|qdrant)"} < kube_statefulset_replicas
        for: 5m
        labels: {severity: critical}
        annotations:
          summary: {{ "{{ $labels.statefulset }} has pods that are not ready." | quote }}
      - alert: MarqueeNoVersion
        expr: absent(marquee_model_version == 1)
        for: 10m
        labels: {severity: critical}
        annotations:
          summary: No replica serves a version.
      - alert: MarqueeVersionsDiffer
        expr: count(count by (version) (marquee_model_version == 1)) > 1
        for: 5m
        labels: {severity: warning}
        annotations:
          summary: Replicas have served different versions for 5 minutes.
      {{- if gt (float64 $limits.cacheHitShare) 0.0 }}
      - alert: MarqueeCacheMisses
        expr: sum(rate(marquee_cache_lookups_total{result="hit"}[15m])) / sum(rate(marquee_cache_lookups_total[15m])) < {{ $limits.cacheHitShare }}
        for: 30m
        labels: {severity: warning}
        annotations:
          summary: Fewer than {{ mulf $limits.cacheHitShare 100 }}% of slates come from the cache.
      {{- end }}
      - alert: MarqueeReplicasWanted
        expr: sum by (deployment) (ray_serve_autoscaling_desired_replicas) > sum by (deployment) (ray_serve_autoscaling_target_replicas)
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: {{ "{{ $labels.deployment }} wants more replicas than it may have." | quote }}
      - alert: MarqueeRayNodeMemory
        expr: ray_node_mem_used / ray_node_mem_total > 0.9
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: A Ray node has used more than 90% of its memory.
      - alert: MarqueeTrainingFailed
        expr: sum by (job_name) (kube_job_status_failed{job_name=~".*-(nightly|bootstrap|events)-.*"}) > 0
        for: 1m
        labels: {severity: warning}
        annotations:
          summary: {{ "The job {{ $labels.job_name }} failed." | quote }}
{{- end -}}
