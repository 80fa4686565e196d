-- Health of RelayMiner and Supplier for Argo CD: the same script for both kinds.
-- Suspended while paused, Progressing while something is going on or another object is waited for, Degraded when Stalled
-- or not Ready, else Healthy. A RelayMiner without Suppliers is Healthy, so that a later wave can create them.
local awaited = {
  RelayMinerMissing = true, RelayMinerNotReady = true, SuppliersNotReady = true, SecretMissing = true,
  RedisSecretMissing = true,
}
local health = { status = "Progressing", message = "Waiting for the operator" }
if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.metadata.generation ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to see the latest change"
  return health
end
local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
local function is(kind, status)
  return found[kind] ~= nil and found[kind].status == status
end
local function text_of(kind)
  return found[kind].reason .. ": " .. (found[kind].message or "")
end
if is("Paused", "True") then
  return { status = "Suspended", message = text_of("Paused") }
end
if is("Stalled", "True") then
  return { status = "Degraded", message = text_of("Stalled") }
end
local reason = found["Ready"] ~= nil and found["Ready"].reason or ""
if is("Ready", "False") and reason == "NoSuppliers" then
  return { status = "Healthy", message = text_of("Ready") }
end
if is("Ready", "False") and reason == "Paused" then
  return { status = "Suspended", message = text_of("Ready") }
end
if is("Ready", "False") and awaited[reason] then
  return { status = "Progressing", message = text_of("Ready") }
end
if is("Reconciling", "True") then
  return { status = "Progressing", message = text_of("Reconciling") }
end
if is("Ready", "False") then
  return { status = "Degraded", message = text_of("Ready") }
end
if is("Ready", "True") then
  return { status = "Healthy", message = text_of("Ready") }
end
return health
