{{/* serveConfigV2: what Ray Serve runs. The stages' names are those of app/main.py; what is not
said here is as the code has it. */}}
{{- define "marquee.serveConfig" -}}
{{- $serve := .Values.serve -}}
{{- $stages := tuple "gateway" "embed" "retrieve" "rank" -}}
{{- if eq $serve.topology "fused" }}{{ $stages = tuple "gateway" }}{{ end -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
applications:
  - name: marquee
    route_prefix: /
    import_path: app.main:app
    deployments:
      {{- range $stages }}
      {{- $stage := index $serve.stages . }}
      - name: {{ title . }}
        max_ongoing_requests: {{ $stage.maxOngoingRequests }}
        ray_actor_options:
          num_cpus: {{ $stage.cpus }}
        {{- if $serve.autoscaling.enabled }}
        autoscaling_config:
          min_replicas: {{ $stage.minReplicas }}
          max_replicas: {{ $stage.maxReplicas }}
          target_ongoing_requests: {{ $stage.targetOngoingRequests }}
          upscale_delay_s: {{ $serve.autoscaling.upscaleDelayS }}
          downscale_delay_s: {{ $serve.autoscaling.downscaleDelayS }}
          look_back_period_s: {{ $serve.autoscaling.lookBackS }}
          metrics_interval_s: {{ $serve.autoscaling.reportIntervalS }}
        {{- else }}
        num_replicas: {{ $stage.minReplicas }}
        {{- end }}
      {{- end }}
{{- end -}}
