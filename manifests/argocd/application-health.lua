-- Health of an Application for the app of apps: that of what it has applied. Argo CD itself has none since 1.8.
-- What is not there yet does not count in it, so an Application is Progressing until what its source names is applied.
local health = { status = "Progressing", message = "Waiting for the first comparison" }
if obj.status == nil or obj.status.health == nil or obj.status.health.status == nil then
  return health
end
health.status = obj.status.health.status
health.message = obj.status.health.message or ""
if health.status ~= "Healthy" then
  return health
end
local sync = obj.status.sync or {}
local compared = (sync.comparedTo or {}).source or {}
local source = (obj.spec or {}).source or {}
local current = compared.repoURL == source.repoURL and compared.path == source.path
  and compared.targetRevision == source.targetRevision
if sync.status ~= "Synced" or not current then
  local reason = current and (sync.status or "Unknown") or "the source changed"
  return { status = "Progressing", message = "Waiting for the sync: " .. reason }
end
return health
