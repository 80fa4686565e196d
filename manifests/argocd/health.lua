-- Health of RelayMiner and Supplier for Argo CD: the same script for both kinds.
-- Suspended while paused, Progressing while something is going on, Degraded when Stalled or not Ready, else Healthy.
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
local function told(kind)
  return found[kind].reason .. ": " .. (found[kind].message or "")
end
if is("Paused", "True") then
  return { status = "Suspended", message = told("Paused") }
end
if is("Stalled", "True") then
  return { status = "Degraded", message = told("Stalled") }
end
if is("Reconciling", "True") then
  return { status = "Progressing", message = told("Reconciling") }
end
if is("Ready", "False") then
  return { status = "Degraded", message = told("Ready") }
end
if is("Ready", "True") then
  return { status = "Healthy", message = told("Ready") }
end
return health
